//go:build unix && !linux

package mdns

import (
	"context"
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenPort opens the port, shared with whoever else has it.
func listenPort(v6 bool, _ int) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
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
