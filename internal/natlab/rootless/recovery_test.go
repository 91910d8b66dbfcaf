package rootless_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/p2ptest"
)

// recovery is how soon after a change calls work again.
const recovery = 5 * time.Second

// A relay that was killed comes back, and those who depend on it are reached again.
func TestWAN_RelayKilledAndBack(t *testing.T) {
	for _, away := range []time.Duration{time.Second, 10 * time.Second, 5 * time.Minute} {
		t.Run(fmt.Sprint("away for ", away), func(t *testing.T) {
			t.Parallel()
			inWAN(t, func(t *testing.T, w *wan) {
				a, b := w.node(w.Router(hosttest.Symmetric), "a"), w.node(w.Router(hosttest.Symmetric), "b")
				w.mustGreet(a, b)
				w.Kill(w.relay)
				time.Sleep(away)
				w.relay = w.Again(w.relay, 0, relayOptions(w.key)...)
				w.mustStart(w.relay)
				t.Logf("called after %v", w.greetsWithin(recovery, a, b))
				w.Await(recovery, func() string { return reserved(b, w.relay) })
			})
		})
	}
}

// Those who are connected directly call each other while the only relay is gone.
func TestWAN_DirectCallsNeedNoRelay(t *testing.T) {
	t.Parallel()
	inWAN(t, func(t *testing.T, w *wan) {
		a, b := w.node(w.Router(hosttest.PortRestricted), "a"), w.node(w.Router(hosttest.Firewall), "b")
		w.mustGreet(a, b)
		w.directWithin(3*time.Second, a, b)
		w.Kill(w.relay)
		for range 20 {
			time.Sleep(30 * time.Second)
			w.mustGreet(a, b)
			w.mustGreet(b, a)
		}
	})
}

// A NAT forgets its mappings, or gets another address, under a direct connection and under a relayed one.
func TestWAN_NATChanges(t *testing.T) {
	for name, change := range map[string]func(*p2ptest.Router){
		"flush": (*p2ptest.Router).FlushMappings, "renumber": (*p2ptest.Router).Renumber,
	} {
		for _, kind := range []hosttest.RouterKind{hosttest.PortRestricted, hosttest.Symmetric} {
			for _, caller := range []string{"inside", "outside"} {
				t.Run(fmt.Sprintf("%s, %s, called from %s", name, kind, caller), func(t *testing.T) {
					t.Parallel()
					inWAN(t, func(t *testing.T, w *wan) {
						home := w.Router(kind)
						a, b := w.node(home, "a"), w.node(w.Router(hosttest.PortRestricted), "b")
						from, to := a, b
						if caller == "outside" {
							from, to = b, a
						}
						w.mustGreet(from, to)
						time.Sleep(10 * time.Second)
						change(home)
						t.Logf("called after %v", w.greetsWithin(recovery, from, to))
						if kind == hosttest.PortRestricted {
							t.Logf("direct after %v", w.directWithin(time.Minute, a, b))
						}
						c := w.node(w.Router(hosttest.PortRestricted), "c")
						t.Logf("called by another after %v", w.greetsWithin(recovery, c, a))
					})
				})
			}
		}
	}
}

// A peer dies and starts again at another port, under the same identity: who called it calls it again, and so does
// somebody who comes anew, through the relay.
func TestWAN_PeerRestarts(t *testing.T) {
	for name, tc := range map[string]struct {
		end    func(w *wan, n *p2p.Node)
		within time.Duration
	}{
		"crash": {func(w *wan, n *p2p.Node) { w.Kill(n) }, recovery},
		"close": {func(w *wan, n *p2p.Node) {
			if err := n.Close(); err != nil {
				w.t.Error(err)
			}
		}, 2 * time.Second},
	} {
		for _, kind := range []hosttest.RouterKind{hosttest.PortRestricted, hosttest.Symmetric} {
			t.Run(name+", "+kind.String(), func(t *testing.T) {
				t.Parallel()
				inWAN(t, func(t *testing.T, w *wan) {
					key, _ := nodetest.NewKey(t)
					a, b := w.node(w.Router(hosttest.PortRestricted), "a"), w.node(w.Router(kind), "b", p2p.WithIdentity(key))
					c := w.node(w.Router(hosttest.PortRestricted), "c")
					w.mustGreet(a, b)
					time.Sleep(10 * time.Second)
					tc.end(w, b)
					b = w.again(b, 9400, "b", p2p.WithIdentity(key))
					begin := time.Now()
					t.Logf("called after %v", w.greetsWithin(tc.within, a, b))
					t.Logf("called by a third after %v", w.greetsWithin(max(0, tc.within-time.Since(begin)), c, b))
					if kind == hosttest.PortRestricted {
						t.Logf("direct after %v", w.directWithin(time.Minute, a, b))
					}
				})
			})
		}
	}
}

// A node's line is down for a while, with all connections on it, and nobody is told.
func TestWAN_LineDownAndUp(t *testing.T) {
	for _, away := range []time.Duration{3 * time.Second, time.Minute} {
		for _, kind := range []hosttest.RouterKind{hosttest.PortRestricted, hosttest.Symmetric} {
			t.Run(fmt.Sprintf("%s, away for %v", kind, away), func(t *testing.T) {
				t.Parallel()
				inWAN(t, func(t *testing.T, w *wan) {
					a, b := w.node(w.Router(kind), "a"), w.node(w.Router(hosttest.PortRestricted), "b")
					w.mustGreet(a, b)
					time.Sleep(10 * time.Second)
					w.Partition(nodesOf(a), nodesOf(b, w.relay))
					time.Sleep(away)
					w.Heal()
					t.Logf("called after %v", w.greetsWithin(recovery, b, a))
					w.greetsWithin(recovery, a, b)
				})
			})
		}
	}
}

// Of two relays, one dies: who was called over it is called over the other. libp2p dials a peer through one relay at a time,
// and may have begun with the one that is dead, for which it waits 5 s.
func TestWAN_OtherRelayTakesOver(t *testing.T) {
	t.Parallel()
	inWAN(t, func(t *testing.T, w *wan) {
		key, _ := nodetest.NewKey(t)
		second := w.newRelay(key)
		both := p2p.WAN(place(w.relay), place(second))
		a, b := w.node(w.Router(hosttest.Symmetric), "a", both), w.node(w.Router(hosttest.Symmetric), "b", both)
		w.mustGreet(a, b)
		time.Sleep(10 * time.Second)
		for _, r := range nodesOf(w.relay, second) {
			if peerOf(a, b.ID()).Relay == r.ID() {
				w.Kill(r)
				break
			}
		}
		t.Logf("called after %v", w.greetsWithin(2*recovery, a, b))
	})
}
