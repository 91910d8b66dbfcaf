package doctor

const (
	nameFiles       = "files"
	nameConnections = "connections"
	nameBuffer      = "udp buffer"
	// near is the share of a limit, in percent, from which on it is said.
	near = 80
	// wantedBuffer is what quic-go asks the kernel for, in bytes; with smallBuffer a connection of 100 ms gets some 20 MiB a
	// second.
	wantedBuffer = 7 << 20
	smallBuffer  = 2 << 20
)

// Limits are what the machine allows a process, and what is used of it. What is not known is 0.
type Limits struct {
	Files, MaxFiles             int // open files, sockets among them
	Connections, MaxConnections int // of libp2p
	UDPBuffer                   int // the largest that a socket may have, in bytes
}

// Judge tells which limits are near.
func (l Limits) Judge() []Check {
	var out []Check
	if l.MaxFiles > 0 {
		c := pass(nameFiles, "%d open, of at most %d", l.Files, l.MaxFiles)
		switch {
		case l.Files*100 >= near*l.MaxFiles:
			c = fail(nameFiles, "%d open, of at most %d: soon no connection can be made", l.Files, l.MaxFiles).todo("raise the limit: ulimit -n 65536, or LimitNOFILE= of the service")
		case l.MaxFiles < 1024:
			c = warn(nameFiles, "at most %d may be open", l.MaxFiles).todo("raise the limit: ulimit -n 65536, or LimitNOFILE= of the service")
		}
		out = append(out, c)
	}
	if l.MaxConnections > 0 {
		c := pass(nameConnections, "%d, unprotected ones are closed above %d", l.Connections, l.MaxConnections)
		if l.Connections > l.MaxConnections {
			c = warn(nameConnections, "%d, and unprotected ones are closed above %d", l.Connections, l.MaxConnections).todo("start further nodes that offer the same, or further relays")
		}
		out = append(out, c)
	}
	if l.UDPBuffer > 0 {
		c := pass(nameBuffer, "%d KiB", l.UDPBuffer>>10)
		if l.UDPBuffer < smallBuffer {
			c = warn(nameBuffer, "at most %d KiB: fast transfers over QUIC on far connections lose packets", l.UDPBuffer>>10).
				todo("as root: sysctl -w net.core.rmem_max=%d net.core.wmem_max=%d", wantedBuffer, wantedBuffer)
		}
		out = append(out, c)
	}
	return out
}
