// Package hosttest gives tests libp2p hosts on an in-memory network: nothing touches a socket, and inside a
// testing/synctest bubble time is virtual.
//
// The hosts speak QUIC over simulated packets and listen at port 9388. A host of the network itself has an address of
// its own in 10.0.0.0/8, as on one large LAN. One behind a [Router] has a public address, or a private one that the
// router translates: libp2p does nothing about NATs for private addresses. A network has no latency and loses nothing
// until the test says otherwise, at any time.
package hosttest

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/marcopolo/simnet"

	"github.com/lynn9388/p2p/host"
)

// Port is the UDP port at which every host of a network listens.
const Port = 9388

// Network is a network of simulated hosts. Its methods are safe for concurrent use.
type Network struct {
	tb   testing.TB
	line simnet.VariableLatencyRouter // carries every packet from where it is sent to where it arrives
	wg   sync.WaitGroup
	stop func()

	mu       sync.Mutex
	last     netip.Addr // of 10.0.0.0/8
	public   int        // how many public addresses were given away
	stations int
	backbone area
	hosts    []corehost.Host
	at       map[network.Network]*station // outlives the hosts
	links    links
}

// New returns a network without latency that is closed when the test ends. Inside a synctest bubble the test closes it
// with [Network.Close] before the bubble ends.
func New(tb testing.TB) *Network {
	tb.Helper()
	n := &Network{tb: tb, last: netip.AddrFrom4([4]byte{10, 0, 0, 0}), at: map[network.Network]*station{}}
	n.line.CloseSignal = make(chan struct{})
	n.line.LatencyFunc = delayOf
	n.line.AddNode(&passage{}, arrivals{n})
	n.line.Start(&n.wg)
	n.stop = sync.OnceFunc(func() {
		close(n.line.CloseSignal)
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
	return n.newHost(cfg, n.Option())
}

func (n *Network) newHost(cfg host.Config, connect libp2p.Option) corehost.Host {
	n.tb.Helper()
	cfg.Libp2p = append(slices.Clone(cfg.Libp2p), connect)
	cfg.Listen = []string{fmt.Sprintf(":%d", Port)}
	h, err := host.New(cfg)
	if err != nil {
		n.tb.Fatalf("hosttest: new host: %v", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts = append(n.hosts, h)
	return h
}

// Option returns the option that connects one host built elsewhere to the network, at a new address. The host listens
// there whatever IPv4 address it is told to listen at; IPv6 is missing. It must be closed before the network is.
func (n *Network) Option() libp2p.Option {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = n.last.Next()
	s := n.newStation(nil)
	s.at = n.last
	n.backbone.put(s.at, s)
	return s.option()
}

// SetLatency sets the one-way delay between a and b.
func (n *Network) SetLatency(a, b corehost.Host, d time.Duration) {
	n.tb.Helper()
	x, y := n.stationOf(a), n.stationOf(b)
	n.change(func(l *links) { l.setLatency(newPair(x, y), d) })
}

// SetLatencyAll sets the one-way delay of every link, those that [Network.SetLatency] has set included. Hosts that share
// the private network behind a router have none among themselves, unless SetLatency is told later.
func (n *Network) SetLatencyAll(d time.Duration) {
	n.change(func(l *links) { l.usual.delay, l.latency = d, nil })
}

// SetLossAll sets the share of packets, from 0 to 1, that every link loses, each packet by itself and at random. Hosts
// that share the private network behind a router lose nothing among themselves.
func (n *Network) SetLossAll(share float64) {
	n.change(func(l *links) { l.usual.loss = share })
}

// Unplug drops every packet from and to a host for good, whatever is healed: its machine has lost its power.
func (n *Network) Unplug(h corehost.Host) {
	n.tb.Helper()
	s := n.stationOf(h)
	n.change(func(l *links) { l.unplug(s.number) })
}

// Replace is [Network.HostWith] for a host in the place of h, at its address and behind its router, as a machine that
// has started again. From now on no packet reaches h, closed or not.
func (n *Network) Replace(h corehost.Host, cfg host.Config) corehost.Host {
	n.tb.Helper()
	return n.newHost(cfg, n.ReplaceOption(h))
}

// ReplaceOption is [Network.Option] for a host in the place of h: see [Network.Replace].
func (n *Network) ReplaceOption(h corehost.Host) libp2p.Option {
	n.tb.Helper()
	old := n.stationOf(h)
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.newStation(old.home)
	s.at = old.at
	s.number, old.number = old.number, s.number // the links are the place's
	n.links.plug(s.number)
	n.links.unplug(old.number)
	if s.home == nil {
		n.backbone.put(s.at, s)
	} else {
		s.home.inside.put(s.at, s)
	}
	return s.option()
}

// Cut drops every packet between a and b until [Network.Heal], whatever routers it passes. Neither side is told.
func (n *Network) Cut(a, b corehost.Host) {
	n.tb.Helper()
	x, y := n.stationOf(a), n.stationOf(b)
	n.change(func(l *links) { l.setCut(newPair(x, y), true) })
}

// Heal ends a [Network.Cut].
func (n *Network) Heal(a, b corehost.Host) {
	n.tb.Helper()
	x, y := n.stationOf(a), n.stationOf(b)
	n.change(func(l *links) { l.setCut(newPair(x, y), false) })
}

// Partition drops every packet between hosts of different groups, in place of an earlier partition. A host that is in
// no group reaches all.
func (n *Network) Partition(groups ...[]corehost.Host) {
	n.tb.Helper()
	side := map[*station]int{}
	for i, g := range groups {
		for _, h := range g {
			side[n.stationOf(h)] = i
		}
	}
	n.change(func(l *links) {
		l.side = map[int]int{}
		for s, i := range side {
			l.side[s.number] = i
		}
	})
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

// stationOf returns where a host is attached, also after it was closed.
func (n *Network) stationOf(h corehost.Host) *station {
	n.tb.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	s, ok := n.at[h.Network()]
	if !ok {
		n.tb.Fatalf("hosttest: host %s is not in this network", h.ID())
	}
	return s
}
