package host

import "golang.org/x/sys/windows"

// What the system says about an address that cannot be bound. The constants of package syscall are not what Winsock
// returns.
const (
	errAddrInUse        = windows.WSAEADDRINUSE
	errAddrNotAvailable = windows.WSAEADDRNOTAVAIL
	errFamily           = windows.WSAEAFNOSUPPORT
)
