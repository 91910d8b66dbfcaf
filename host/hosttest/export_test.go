package hosttest

import (
	"net"
	"net/netip"
)

// Place is where a host could be, for tests of plain packets.
type Place struct{ *station }

// Place returns a new one behind the router.
func (r *Router) Place() Place { return Place{r.station()} }

// Listen returns a socket.
func (p Place) Listen(port uint16) (net.PacketConn, error) { return p.listen(port) }

// Addr returns the address of the place.
func (p Place) Addr() netip.Addr { return p.at }
