package mdns

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/windows"
)

// listenPort opens the port, shared with whoever else has it.
func listenPort(v6 bool, _ int) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_REUSEADDR, 1)
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	if v6 {
		return lc.ListenPacket(context.Background(), "udp6", "[::]:5353")
	}
	return lc.ListenPacket(context.Background(), "udp4", "0.0.0.0:5353")
}
