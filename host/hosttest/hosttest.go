// Package hosttest gives tests libp2p hosts on an in-memory network: nothing touches a socket, and inside a
// testing/synctest bubble time is virtual.
//
// The hosts speak QUIC over simulated packets. Each has an address of its own in 10.0.0.0/8 and listens there at port
// 9388. A network has no latency and loses nothing until the test says otherwise, at any time.
package hosttest

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
)

// Port is the UDP port at which every host of a network listens.
const Port = 9388

// Network is a network of simulated hosts. Its methods are safe for concurrent use.
type Network struct {
	tb     testing.TB
	router simnet.VariableLatencyRouter
	wg     sync.WaitGroup
	stop   func()

	mu    sync.Mutex
	last  netip.Addr
	hosts []corehost.Host
	addrs map[peer.ID]netip.Addr // outlives the hosts
	links links
}

// New returns a network without latency that is closed when the test ends. Inside a synctest bubble the test closes it
// with [Network.Close] before the bubble ends.
func New(tb testing.TB) *Network {
	tb.Helper()
	n := &Network{tb: tb, last: netip.AddrFrom4([4]byte{10, 0, 0, 0}), addrs: map[peer.ID]netip.Addr{}}
	n.router.CloseSignal = make(chan struct{})
	n.router.LatencyFunc = n.latency
	n.router.Start(&n.wg)
	n.stop = sync.OnceFunc(func() {
		close(n.router.CloseSignal)
		n.wg.Wait()
	})
	tb.Cleanup(n.Close)
	return n
}

// Host returns a new host, built by [host.New] with the options, that listens on a simulated address of its own. It
// fails the test when it cannot. Closing the host is left to the network; a test may do it earlier.
func (n *Network) Host(opts ...libp2p.Option) corehost.Host {
	n.tb.Helper()
	return n.HostWith(host.Config{Libp2p: opts})
}

// HostWith is [Network.Host] with a whole configuration: its Listen is ignored, and the options that connect the host
// to the network are added.
func (n *Network) HostWith(cfg host.Config) corehost.Host {
	n.tb.Helper()
	cfg.Libp2p = append(slices.Clone(cfg.Libp2p), n.Option())
	cfg.Listen = []string{fmt.Sprintf(":%d", Port)}
	h, err := host.New(cfg)
	if err != nil {
		n.tb.Fatalf("hosttest: new host: %v", err)
	}
	n.addrOf(h) // remembers it
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts = append(n.hosts, h)
	return h
}

// Option returns the option that connects one host built elsewhere to the network, at a new address. The host listens
// there whatever IPv4 address it is told to listen at; IPv6 is missing. It must be closed before the network is.
func (n *Network) Option() libp2p.Option {
	n.mu.Lock()
	n.last = n.last.Next()
	ip := n.last
	n.mu.Unlock()
	return libp2p.ChainOptions(
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.QUICReuse(func(reset quic.StatelessResetKey, token quic.TokenGeneratorKey, lc fx.Lifecycle) (*quicreuse.ConnManager, error) {
			m, err := quicreuse.NewConnManager(reset, token,
				quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return source(ip), nil }),
				quicreuse.OverrideListenUDP(func(network string, at *net.UDPAddr) (net.PacketConn, error) {
					if network == "udp6" {
						return nil, syscall.EAFNOSUPPORT
					}
					return n.endpoint(netip.AddrPortFrom(ip, uint16(at.Port)))
				}))
			if err != nil {
				return nil, err
			}
			lc.Append(fx.StopHook(m.Close))
			return m, nil
		}),
	)
}

// source is the one address of a simulated host.
type source netip.Addr

// PreferredSourceIPForDestination implements [quicreuse.SourceIPSelector].
func (s source) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	return netip.Addr(s).AsSlice(), nil
}

// endpoint returns a simulated socket; port 0 stands for Port, since a host here listens once.
func (n *Network) endpoint(at netip.AddrPort) (net.PacketConn, error) {
	if at.Port() == 0 {
		at = netip.AddrPortFrom(at.Addr(), Port)
	}
	udp := net.UDPAddrFromAddrPort(at)
	c := simnet.NewBlockingSimConn(udp)
	c.SetUpPacketReceiver(wire{n})
	n.router.AddNode(udp, c)
	return &endpoint{SimConn: c, left: func() { n.router.RemoveNode(udp) }}, nil
}

// endpoint is a simulated socket that leaves the network when it is closed.
type endpoint struct {
	*simnet.SimConn
	left func()
}

// Close implements [net.PacketConn].
func (e *endpoint) Close() error {
	e.left()
	return e.SimConn.Close()
}

// wire is what the hosts' sockets send to.
type wire struct{ n *Network }

// RecvPacket implements [simnet.PacketReceiver].
func (w wire) RecvPacket(p *simnet.Packet) {
	n := w.n
	n.mu.Lock()
	lost := n.links.lost(pairOf(p))
	n.mu.Unlock()
	if to, ok := p.To.(*net.UDPAddr); ok && !lost {
		// The router compares addresses by their bytes, and an IPv4 address may have 4 or 16.
		p.To = net.UDPAddrFromAddrPort(netip.AddrPortFrom(ipOf(to), uint16(to.Port)))
		n.router.RecvPacket(p)
	}
}

func (n *Network) latency(p *simnet.Packet) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links.delay(pairOf(p))
}

// SetLatency sets the one-way delay between a and b.
func (n *Network) SetLatency(a, b corehost.Host, d time.Duration) {
	n.tb.Helper()
	p := n.pair(a, b)
	n.change(func(l *links) { l.setLatency(p, d) })
}

// SetLatencyAll sets the one-way delay of every link, those that [Network.SetLatency] has set included.
func (n *Network) SetLatencyAll(d time.Duration) {
	n.change(func(l *links) { l.usual, l.latency = d, nil })
}

// SetLossAll sets the share of packets, from 0 to 1, that every link loses, each packet by itself and at random.
func (n *Network) SetLossAll(share float64) {
	n.change(func(l *links) { l.loss = share })
}

// Unplug drops every packet from and to a host for good, whatever is healed: its machine has lost its power.
func (n *Network) Unplug(h corehost.Host) {
	n.tb.Helper()
	at := n.addrOf(h)
	n.change(func(l *links) { l.unplug(at) })
}

// Cut drops every packet between a and b until [Network.Heal]. Neither side is told.
func (n *Network) Cut(a, b corehost.Host) {
	n.tb.Helper()
	p := n.pair(a, b)
	n.change(func(l *links) { l.setCut(p, true) })
}

// Heal ends a [Network.Cut].
func (n *Network) Heal(a, b corehost.Host) {
	n.tb.Helper()
	p := n.pair(a, b)
	n.change(func(l *links) { l.setCut(p, false) })
}

// Partition drops every packet between hosts of different groups, in place of an earlier partition. A host that is in
// no group reaches all.
func (n *Network) Partition(groups ...[]corehost.Host) {
	n.tb.Helper()
	side := map[netip.Addr]int{}
	for i, g := range groups {
		for _, h := range g {
			side[n.addrOf(h)] = i
		}
	}
	n.change(func(l *links) { l.side = side })
}

// HealAll ends every cut and partition. Latencies and losses stay.
func (n *Network) HealAll() {
	n.change(func(l *links) { l.side, l.cuts = nil, nil })
}

func (n *Network) change(f func(*links)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(&n.links)
}

// Close closes the hosts and the network and waits for both. It may be called more than once.
func (n *Network) Close() {
	n.mu.Lock()
	hosts := n.hosts
	n.hosts = nil
	n.mu.Unlock()
	var wg sync.WaitGroup
	for _, h := range hosts {
		wg.Go(func() { _ = h.Close() })
	}
	wg.Wait()
	n.stop()
}

func (n *Network) pair(a, b corehost.Host) pair {
	n.tb.Helper()
	return newPair(n.addrOf(a), n.addrOf(b))
}

// addrOf returns the address of a host, also after it was closed if it was asked for, or made by this network, before.
// Of two hosts with one identity it knows the address while they are open.
func (n *Network) addrOf(h corehost.Host) netip.Addr {
	n.tb.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range h.Network().ListenAddresses() {
		if ip, ok := addr.IP(a); ok && ip.Is4() && ip.As4()[0] == 10 {
			n.addrs[h.ID()] = ip
			return ip
		}
	}
	at, ok := n.addrs[h.ID()]
	if !ok {
		n.tb.Fatalf("hosttest: host %s is not in this network", h.ID())
	}
	return at
}
