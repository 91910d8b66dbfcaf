package mdns

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// listenPort opens the port for the group's packets alone: a socket that is bound to the group takes no unicast packet
// away from another responder of the machine, and hears only the interfaces that it joins itself.
func listenPort(v6 bool, index int) (net.PacketConn, error) {
	family := unix.AF_INET
	var at unix.Sockaddr = &unix.SockaddrInet4{Port: port, Addr: group(false).As4()}
	if v6 {
		family = unix.AF_INET6
		at = &unix.SockaddrInet6{Port: port, Addr: group(true).As16(), ZoneId: uint32(index)} //nolint:gosec // small
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "mdns")
	defer func() { _ = f.Close() }() // FilePacketConn has its own
	options := [][3]int{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
	}
	if v6 {
		options = append(options, [3]int{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1})
	} else {
		options = append(options, [3]int{unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Bind(fd, at); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	pc, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return pc, nil
}
