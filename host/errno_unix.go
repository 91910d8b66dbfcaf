//go:build !windows

package host

import "syscall"

// What the system says about an address that cannot be bound.
const (
	errAddrInUse        = syscall.EADDRINUSE
	errAddrNotAvailable = syscall.EADDRNOTAVAIL
	errFamily           = syscall.EAFNOSUPPORT
)
