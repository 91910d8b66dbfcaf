// Package sockets tells which sockets a process has open to others, as the kernel knows it.
package sockets

import (
	"errors"
	"fmt"
	"net/netip"
)

// ErrUnsupported is returned where the kernel does not tell, or this package does not know how to ask it.
var ErrUnsupported = errors.New("sockets: not known on this system")

// A Socket is one at which others can reach the process: a TCP socket that listens, or a UDP socket that is connected to
// nobody.
type Socket struct {
	Network string // "tcp" or "udp"
	Addr    netip.AddrPort
}

// String returns "tcp 0.0.0.0:9388".
func (s Socket) String() string { return fmt.Sprintf("%s %s", s.Network, s.Addr) }
