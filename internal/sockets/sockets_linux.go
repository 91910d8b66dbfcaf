package sockets

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The states of a socket in /proc/net/tcp and /proc/net/udp that others can reach: listening, and not connected.
const (
	stateListen = "0A"
	stateClose  = "07"
)

// Own returns the sockets of this process, by network and address.
func Own() ([]Socket, error) {
	inodes, err := ownInodes()
	if err != nil {
		return nil, fmt.Errorf("sockets: %w", err)
	}
	var out []Socket
	for _, table := range []struct{ name, state string }{{"tcp", stateListen}, {"tcp6", stateListen}, {"udp", stateClose}, {"udp6", stateClose}} {
		data, err := os.ReadFile("/proc/self/net/" + table.name)
		if os.IsNotExist(err) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("sockets: %w", err)
		}
		for line := range strings.Lines(string(data)) {
			addr, state, inode, ok := parseLine(line)
			if ok && state == table.state && inodes[inode] {
				out = append(out, Socket{Network: strings.TrimSuffix(table.name, "6"), Addr: addr})
			}
		}
	}
	slices.SortFunc(out, func(a, b Socket) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), a.Addr.Compare(b.Addr))
	})
	return slices.Compact(out), nil
}

// ownInodes are those of the sockets that this process has open.
func ownInodes() (map[string]bool, error) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	out := make(map[string]bool)
	for _, fd := range fds {
		at, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil {
			continue // closed since
		}
		if inode, ok := strings.CutPrefix(at, "socket:["); ok {
			out[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return out, nil
}

// parseLine reads a line of /proc/net/tcp and the like (proc_pid_net(5)): the local address, the state and the inode.
func parseLine(line string) (addr netip.AddrPort, state, inode string, ok bool) {
	fields := strings.Fields(line)
	const local, st, ino = 1, 3, 9
	if len(fields) <= ino {
		return addr, "", "", false
	}
	host, port, found := strings.Cut(fields[local], ":")
	n, err := strconv.ParseUint(port, 16, 16)
	raw, rawErr := hex.DecodeString(host)
	if !found || err != nil || rawErr != nil || len(raw)%4 != 0 {
		return addr, "", "", false
	}
	for i := 0; i < len(raw); i += 4 { // words of 32 bits, each printed as a number of this machine
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	ip, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), fields[st], fields[ino], ok
}
