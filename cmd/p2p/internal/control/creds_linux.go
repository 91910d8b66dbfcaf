package control

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerUID returns the user of the process at the other end, as the kernel says.
func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var sysErr error
	if err := raw.Control(func(fd uintptr) {
		cred, sysErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if sysErr != nil {
		return 0, sysErr
	}
	return cred.Uid, nil
}
