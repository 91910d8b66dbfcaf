package p2ptest

import (
	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/host/hosttest"
)

// Router stands between nodes and the rest of a simulated network, as a firewall or a NAT does: see
// [hosttest.RouterKind]. Nodes behind one router reach each other without it. Its methods belong into the test's own
// goroutine.
type Router struct {
	net  *Net
	wire *hosttest.Router
}

// Router returns a new router on the network. Behind one that is [hosttest.Open] each node has a public address.
func (n *Net) Router(kind hosttest.RouterKind) *Router {
	n.t.Helper()
	return &Router{n, n.wire.Router(kind)}
}

// Router returns a new router behind r.
func (r *Router) Router(kind hosttest.RouterKind) *Router {
	r.net.t.Helper()
	return &Router{r.net, r.wire.Router(kind)}
}

// Node is [Net.Node] for a node behind the router.
func (r *Router) Node(opts ...p2p.Option) *p2p.Node {
	r.net.t.Helper()
	return r.net.node(r.wire.Option(), opts)
}

// Start is [Net.Start] for nodes behind the router. They join through the first living node of the network, which they
// reach if it has a public address or is behind the same router.
func (r *Router) Start(count int, setup func(i int, n *p2p.Node), opts ...p2p.Option) []*p2p.Node {
	r.net.t.Helper()
	return r.net.start(count, setup, func() *p2p.Node { return r.Node(opts...) })
}

// FlushMappings makes the router forget what has left it, as a restart does. What leaves it next gets other ports.
func (r *Router) FlushMappings() { r.wire.FlushMappings() }

// Renumber gives a NAT a new address outside, as a provider does from time to time.
func (r *Router) Renumber() { r.wire.Renumber() }

// Hairpin sets whether nodes behind a NAT reach each other by the addresses that it maps to. At first they do not.
func (r *Router) Hairpin(on bool) { r.wire.SetHairpin(on) }
