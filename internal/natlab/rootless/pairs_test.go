package rootless_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/pace"
	"github.com/lynn9388/p2p/p2ptest"
)

// site is a place from which nodes reach the Internet.
type site struct {
	name    string
	routers []hosttest.RouterKind // from outside to inside
}

func sites() []site {
	return []site{
		{"open", []hosttest.RouterKind{hosttest.Open}},
		{"firewall", []hosttest.RouterKind{hosttest.Firewall}},
		{"full cone", []hosttest.RouterKind{hosttest.FullCone}},
		{"restricted", []hosttest.RouterKind{hosttest.Restricted}},
		{"port-restricted", []hosttest.RouterKind{hosttest.PortRestricted}},
		{"symmetric", []hosttest.RouterKind{hosttest.Symmetric}},
		{"carrier, cone", []hosttest.RouterKind{hosttest.FullCone, hosttest.PortRestricted}},
		{"carrier, symmetric", []hosttest.RouterKind{hosttest.Symmetric, hosttest.PortRestricted}},
	}
}

func (s site) build(w *wan) *p2ptest.Router {
	r := w.Router(s.routers[0])
	for _, k := range s.routers[1:] {
		r = r.Router(k)
	}
	return r
}

// strictest is the kind of the router that decides who comes in.
func (s site) strictest() (k hosttest.RouterKind) {
	for _, r := range s.routers {
		k = max(k, r)
	}
	return k
}

// open tells whether a packet from an address comes in that was sent to, whatever port it has.
func (s site) byAddress() bool {
	k := s.strictest()
	return k == hosttest.Open || k == hosttest.FullCone || k == hosttest.Restricted
}

// direct tells whether a and b can have a direct connection, in theory: when the outside port of neither depends on whom
// it talks to, or one lets in whom it talks to from any port.
func direct(a, b site) bool {
	return a.strictest() != hosttest.Symmetric && b.strictest() != hosttest.Symmetric || a.byAddress() || b.byAddress()
}

// Each pair of sites: two nodes start at once, and one calls the other by its ID, first over the relay, soon directly.
func TestWAN_Pairs(t *testing.T) {
	for _, from := range sites() {
		for _, to := range sites() {
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				t.Parallel()
				inWAN(t, func(t *testing.T, w *wan) {
					a, b := w.node(from.build(w), "a"), w.node(to.build(w), "b")
					begin := time.Now()
					first := w.mustGreet(a, b)
					if first > time.Second {
						t.Errorf("the first call took %v", first)
					}
					if !direct(from, to) {
						time.Sleep(20 * time.Second)
						w.mustGreet(a, b)
						p := peerOf(a, b.ID())
						if p.Path != "relay" || p.Relay != w.relay.ID() || p.NotDirect == "" || len(p.Attempts) == 0 {
							t.Errorf("path %q through %s, because %q, after %d attempts", p.Path, p.Relay, p.NotDirect, len(p.Attempts))
						}
						t.Logf("called after %v, relayed: %s", first, p.NotDirect)
						return
					}
					w.directWithin(3*time.Second, a, b)
					took := time.Since(begin)
					w.aloneWithin(drained, a, b)
					if call := w.mustGreet(a, b); call > 50*time.Millisecond {
						t.Errorf("a call took %v directly", call)
					}
					t.Logf("called after %v, direct after %v", first, took)
				})
			})
		}
	}
}

// A port-restricted pair, which is what most homes are, has a second from the start of both processes.
func TestWAN_PortRestrictedPairInASecond(t *testing.T) {
	t.Parallel()
	for _, to := range [][]hosttest.RouterKind{{hosttest.PortRestricted}, {hosttest.PortRestricted, hosttest.PortRestricted}} {
		inWAN(t, func(t *testing.T, w *wan) {
			begin := time.Now()
			a := w.node(w.Router(hosttest.PortRestricted), "a")
			b := w.node(site{routers: to}.build(w), "b")
			w.mustGreet(a, b)
			w.directWithin(time.Second-time.Since(begin), a, b)
			t.Logf("direct after %v", time.Since(begin))
		})
	}
}

// On a line of 50 ms that loses every twentieth packet it takes less than 4 s, and now and then a second attempt.
func TestWAN_PortRestrictedPairOnABadLine(t *testing.T) {
	t.Parallel()
	for range pace.Of(20, 4) {
		inWAN(t, func(t *testing.T, w *wan) {
			w.Latency(50 * time.Millisecond)
			w.Loss(0.05)
			begin := time.Now()
			a, b := w.node(w.Router(hosttest.PortRestricted), "a"), w.node(w.Router(hosttest.PortRestricted), "b")
			w.mustGreet(a, b)
			w.directWithin(8*time.Second-time.Since(begin), a, b)
			t.Logf("direct after %v", time.Since(begin))
		})
	}
}

// Behind one NAT, which leads nobody back in, two nodes find each other by the addresses that they have there.
func TestWAN_SameNAT(t *testing.T) {
	for _, kind := range []hosttest.RouterKind{hosttest.FullCone, hosttest.PortRestricted, hosttest.Symmetric} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			inWAN(t, func(t *testing.T, w *wan) {
				home := w.Router(kind)
				begin := time.Now()
				a, b := w.node(home, "a"), w.node(home, "b")
				w.mustGreet(a, b)
				w.directWithin(time.Second-time.Since(begin), a, b)
				t.Logf("direct after %v", time.Since(begin))
				if at := peerOf(a, b.ID()).Addrs[0]; addr.ScopeOf(at) != addr.Private {
					t.Errorf("connected at %s", at)
				}
			})
		})
	}
}

// Two homes of one carrier reach each other directly only where the carrier's NAT leads packets back in.
func TestWAN_SameCarrier(t *testing.T) {
	for _, hairpin := range []bool{false, true} {
		t.Run(fmt.Sprint("hairpin ", hairpin), func(t *testing.T) {
			t.Parallel()
			inWAN(t, func(t *testing.T, w *wan) {
				carrier := w.Router(hosttest.PortRestricted)
				carrier.Hairpin(hairpin)
				a := w.node(carrier.Router(hosttest.PortRestricted), "a")
				b := w.node(carrier.Router(hosttest.PortRestricted), "b")
				w.mustGreet(a, b)
				if hairpin {
					t.Logf("direct after %v", w.directWithin(3*time.Second, a, b))
					return
				}
				time.Sleep(20 * time.Second)
				if p := peerOf(a, b.ID()); p.Path != "relay" || p.NotDirect == "" {
					t.Errorf("path %q, because %q", p.Path, p.NotDirect)
				}
				w.mustGreet(b, a)
			})
		})
	}
}

// What did not work for a while is tried again.
func TestWAN_TriesAgain(t *testing.T) {
	t.Parallel()
	inWAN(t, func(t *testing.T, w *wan) {
		a, b := w.node(w.Router(hosttest.PortRestricted), "a"), w.node(w.Router(hosttest.Firewall), "b")
		w.Partition(nodesOf(a), nodesOf(b))
		w.mustGreet(a, b)
		time.Sleep(30 * time.Second)
		if p := peerOf(a, b.ID()); p.Path != "relay" || len(p.Attempts) < 2 {
			t.Fatalf("path %q after %d attempts", p.Path, len(p.Attempts))
		}
		w.Heal()
		t.Logf("direct after %v", w.directWithin(2*time.Minute, a, b))
		w.mustGreet(b, a)
	})
}
