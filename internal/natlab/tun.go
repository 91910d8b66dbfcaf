//go:build linux

package natlab

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/lynn9388/p2p/internal/netns"
)

// tunDevice is where TUN devices are made.
const tunDevice = "/dev/net/tun"

// newTUN makes the interface wan in a host and returns the descriptor by which its packets are read and written, without
// waiting. The interface is gone when it is closed.
func newTUN(h *netns.Host, name string) (fd int, err error) {
	err = h.Do(func() error {
		fd, err = unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("natlab: open %s: %w", tunDevice, err)
		}
		request, err := unix.NewIfreq(name)
		if err != nil {
			return fmt.Errorf("natlab: interface %s: %w", name, err)
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("natlab: make interface %s: %w", name, err)
		}
		return nil
	})
	return fd, err
}
