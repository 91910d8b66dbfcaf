package rootless_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/host/reach"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/p2ptest"
)

// wan is a simulated Internet of 15 ms with one relay, in virtual time.
type wan struct {
	*p2ptest.Net
	t     *testing.T
	relay *p2p.Node
	key   crypto.PrivKey // of the relay
}

// inWAN runs f in a network of its own.
func inWAN(t *testing.T, f func(t *testing.T, w *wan)) {
	t.Helper()
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		net.Latency(15 * time.Millisecond)
		w := &wan{Net: net, t: t}
		w.key, _ = nodetest.NewKey(t)
		w.relay = w.newRelay(w.key)
		f(t, w)
	})
}

// newRelay starts a relay, which knows nobody.
func (w *wan) newRelay(key crypto.PrivKey, opts ...p2p.Option) *p2p.Node {
	w.t.Helper()
	n := w.Router(hosttest.Open).Node(append(relayOptions(key), opts...)...)
	w.mustStart(n)
	return n
}

func relayOptions(key crypto.PrivKey) []p2p.Option {
	return []p2p.Option{p2p.Relay(), p2p.WithOpen(), p2p.WithIdentity(key), p2p.WithName("relay")}
}

// place is where others join a node that is public.
func place(n *p2p.Node) string { return n.Addrs()[0].String() }

// node starts a node behind a router, which uses the relay and greets.
func (w *wan) node(at *p2ptest.Router, name string, opts ...p2p.Option) *p2p.Node {
	w.t.Helper()
	return w.serve(at.Node(w.options(name, opts...)...), name)
}

// again starts a node in the place of one that is gone.
func (w *wan) again(gone *p2p.Node, port int, name string, opts ...p2p.Option) *p2p.Node {
	w.t.Helper()
	return w.serve(w.Again(gone, port, w.options(name, opts...)...), name)
}

// serve starts a node that greets and sends back what it hears.
func (w *wan) serve(n *p2p.Node, name string) *p2p.Node {
	w.t.Helper()
	pb.RegisterGreeterServiceServer(n, nodetest.Greeter{Who: name})
	n.RegisterService(echoDesc(), nil)
	w.mustStart(n)
	return n
}

func (w *wan) options(name string, more ...p2p.Option) []p2p.Option {
	return append([]p2p.Option{p2p.WAN(place(w.relay)), p2p.WithOpen(), p2p.WithName(name)}, more...)
}

func (w *wan) mustStart(n *p2p.Node) {
	w.t.Helper()
	if err := n.StartServer(); err != nil {
		w.t.Fatal(err)
	}
}

// mustGreet calls to from from, and returns how long the answer took.
func (w *wan) mustGreet(from, to *p2p.Node) time.Duration {
	w.t.Helper()
	begin := time.Now()
	if _, err := nodetest.Greet(w.t, from.Peer(to.ID().String())); err != nil {
		w.t.Errorf("after %v: %v", time.Since(begin), err)
	}
	return time.Since(begin)
}

// greetsWithin calls again and again until a call is answered, and returns when that was.
func (w *wan) greetsWithin(within time.Duration, from, to *p2p.Node) time.Duration {
	w.t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(w.t.Context(), within)
	defer cancel()
	if err := nodetest.UntilAnswered(ctx, from.Peer(to.ID().String()), nodetest.SayHello); err != nil {
		w.t.Fatalf("after %v: %v", time.Since(begin), err)
	}
	return time.Since(begin)
}

// peerOf returns what n knows of a peer.
func peerOf(n *p2p.Node, id peer.ID) p2p.PeerInfo {
	all := n.Peers()
	if i := slices.IndexFunc(all, func(p p2p.PeerInfo) bool { return p.ID == id }); i >= 0 {
		return all[i]
	}
	return p2p.PeerInfo{}
}

// directWithin waits until both sides call each other directly, and returns when that was.
func (w *wan) directWithin(within time.Duration, a, b *p2p.Node) time.Duration {
	w.t.Helper()
	return w.Await(within, func() string {
		if what := notDirect(a, b); what != "" {
			return what
		}
		return notDirect(b, a)
	})
}

// notDirect tells why from does not reach to directly, or "".
func notDirect(from, to *p2p.Node) string {
	p := peerOf(from, to.ID())
	if p.Path == "direct" {
		return ""
	}
	return fmt.Sprintf("from %s: path %q, because %q, attempts %v", label(from), p.Path, p.NotDirect, p.Attempts)
}

// drained is how soon after a direct connection the relayed one is gone at the latest: what is on it may go on for 30 s.
const drained = 40 * time.Second

// aloneWithin waits until no relayed connection is left beside the direct one.
func (w *wan) aloneWithin(within time.Duration, a, b *p2p.Node) time.Duration {
	w.t.Helper()
	return w.Await(within, func() string {
		for _, c := range a.Host().Network().ConnsToPeer(b.ID()) {
			if c.Stat().Limited {
				return fmt.Sprintf("the %s connection over %s, %v old, is kept for %s",
					c.Stat().Direction, c.RemoteMultiaddr(), time.Since(c.Stat().Opened), streamsOf(c))
			}
		}
		return ""
	})
}

// streamsOf lists what is on a connection.
func streamsOf(c network.Conn) string {
	var out []string
	for _, s := range c.GetStreams() {
		out = append(out, fmt.Sprintf("%s %q, %v old", s.Stat().Direction, s.Protocol(), time.Since(s.Stat().Opened)))
	}
	return fmt.Sprint(out)
}

// label tells nodes apart in messages.
func label(n *p2p.Node) string {
	if a := n.Addrs(); len(a) > 0 {
		return a[0].String()
	}
	return n.ID().String()
}

// circuits returns the addresses of a node that lead through a relay.
func circuits(n *p2p.Node) []ma.Multiaddr {
	return slices.DeleteFunc(n.Addrs(), func(a ma.Multiaddr) bool {
		_, err := a.ValueForProtocol(ma.P_CIRCUIT)
		return err != nil
	})
}

// reserved tells what is missing for a node to be reachable through a relay, or "".
func reserved(n, relay *p2p.Node) string {
	s := n.Reachability()
	i := slices.IndexFunc(s.Relays, func(r reach.RelayStatus) bool { return r.ID == relay.ID() && r.Reserved })
	if i < 0 {
		return fmt.Sprintf("no reservation: %+v", s.Relays)
	}
	for _, a := range circuits(n) {
		if id, err := a.ValueForProtocol(ma.P_P2P); err == nil && id == relay.ID().String() {
			return ""
		}
	}
	return fmt.Sprintf("announced are %v", n.Addrs())
}

func TestWAN_ReservationAtOnce(t *testing.T) {
	for _, kind := range []hosttest.RouterKind{
		hosttest.Firewall, hosttest.FullCone, hosttest.Restricted, hosttest.PortRestricted, hosttest.Symmetric,
	} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			inWAN(t, func(t *testing.T, w *wan) {
				n := w.node(w.Router(kind), "a")
				t.Logf("reserved after %v", w.Await(500*time.Millisecond, func() string { return reserved(n, w.relay) }))
			})
		})
	}
}

func TestWAN_ReservationWithOneOfTwoRelaysDead(t *testing.T) {
	t.Parallel()
	inWAN(t, func(t *testing.T, w *wan) {
		key, _ := nodetest.NewKey(t)
		dead := w.newRelay(key)
		w.Kill(dead)
		for _, relays := range [][]string{{place(dead), place(w.relay)}, {place(w.relay), place(dead)}} {
			n := w.node(w.Router(hosttest.PortRestricted), "a", p2p.WAN(relays...))
			t.Logf("reserved after %v", w.Await(500*time.Millisecond, func() string { return reserved(n, w.relay) }))
		}
	})
}

func TestWAN_PublicNodeDoesWithoutReservations(t *testing.T) {
	t.Parallel()
	inWAN(t, func(t *testing.T, w *wan) {
		n := w.node(w.Router(hosttest.Open), "public")
		took := w.Await(5*time.Second, func() string {
			s := n.Reachability()
			if s.Reachability != network.ReachabilityPublic || len(s.Circuits) > 0 || len(circuits(n)) > 0 {
				return fmt.Sprintf("%v with the addresses %v", s.Reachability, n.Addrs())
			}
			if slices.ContainsFunc(s.Relays, func(r reach.RelayStatus) bool { return r.Reserved }) {
				return "it holds a reservation"
			}
			return ""
		})
		t.Logf("public after %v", took)
		other := w.node(w.Router(hosttest.Symmetric), "a")
		w.mustGreet(other, n)
		w.mustGreet(n, other)
		w.directWithin(time.Second, n, other)
	})
}

func nodesOf(nodes ...*p2p.Node) []*p2p.Node { return nodes }
