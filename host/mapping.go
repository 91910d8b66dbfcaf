package host

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/lynn9388/p2p/host/internal/portmap"
	"github.com/lynn9388/p2p/internal/addr"
)

// mapping has the link's router map the listening ports. libp2p's own takes five seconds to find a router by UPnP, looks
// for one only once, takes any device's word for being one, and leaves goroutines behind.
type mapping struct {
	*portmap.Mapper
	network network.Network
	notify  *network.NotifyBundle
	stop    context.CancelFunc
	done    sync.WaitGroup
}

var _ basichost.NATManager = (*mapping)(nil)

func newMapping(n network.Network, log *slog.Logger) *mapping {
	m := &mapping{network: n}
	m.Mapper = portmap.New(func() []portmap.Port { return portsOf(n.ListenAddresses()) }, log)
	m.notify = &network.NotifyBundle{
		ListenF:      func(network.Network, ma.Multiaddr) { m.Look() },
		ListenCloseF: func(network.Network, ma.Multiaddr) { m.Look() },
	}
	n.Notify(m.notify)
	var ctx context.Context
	ctx, m.stop = context.WithCancel(context.Background())
	m.done.Go(func() { _ = m.Run(ctx) }) // it has no error
	return m
}

// Close implements [basichost.NATManager].
func (m *mapping) Close() error {
	m.network.StopNotify(m.notify)
	m.stop()
	m.done.Wait()
	return nil
}

// HasDiscoveredNAT implements [basichost.NATManager].
func (m *mapping) HasDiscoveredNAT() bool { return m.Found() }

// GetMapping implements [basichost.NATManager].
func (m *mapping) GetMapping(listen ma.Multiaddr) ma.Multiaddr {
	port, ok := mappable(listen)
	if !ok {
		return nil
	}
	at, ok := m.Outside(port)
	if !ok {
		return nil
	}
	ip, err := manet.FromIP(at.Addr().AsSlice())
	if err != nil {
		return nil
	}
	return ip.Encapsulate(withPort(listen[1:], at.Port()))
}

// portsOf returns the ports that a router could let others in at.
func portsOf(listen []ma.Multiaddr) []portmap.Port {
	var out []portmap.Port
	for _, a := range listen {
		if p, ok := mappable(a); ok && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// mappable returns the port of a listening address that is of IPv4 and of more than this machine.
func mappable(a ma.Multiaddr) (portmap.Port, bool) {
	ip, ok := addr.IP(a)
	if !ok || !ip.Is4() || ip != netip.IPv4Unspecified() && addr.IPScope(ip) != addr.Private || len(a) < 2 {
		return portmap.Port{}, false
	}
	network := a[1].Protocol().Name
	number, err := strconv.ParseUint(a[1].Value(), 10, 16)
	if err != nil || network != "tcp" && network != "udp" {
		return portmap.Port{}, false
	}
	return portmap.Port{Network: network, Number: uint16(number)}, true
}

// mapped returns the addresses at which the link's router lets others in, as it has mapped them; nil without
// [Config.MapPorts].
func (n *node) mapped() []ma.Multiaddr {
	if n.mapping == nil {
		return nil
	}
	var out []ma.Multiaddr
	for _, a := range n.Network().ListenAddresses() {
		if at := n.mapping.GetMapping(a); at != nil {
			out = append(out, at)
		}
	}
	return out
}
