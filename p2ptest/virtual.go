package p2ptest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	corehost "github.com/libp2p/go-libp2p/core/host"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/virtual"
)

// Virtual runs f in virtual time, on a simulated network that is its own. Within f no socket is opened, and the clock
// stands still while any goroutine works and jumps ahead when all of them wait: an hour of it takes moments, and a
// time limit does not depend on how fast the machine is. It is [synctest.Test], whose rules hold: goroutines that f
// starts end before it does, and f calls neither t.Run nor t.Parallel.
//
// The nodes are whole ones, which speak QUIC over simulated packets. They are closed when f returns.
func Virtual(t *testing.T, f func(t *testing.T, net *Net)) {
	t.Helper()
	// Signed peer records are numbered by the time, and libp2p gives out no smaller number than before in the whole
	// process: a clock decades behind would make the records of a test after one in real time ones from the future.
	now := time.Now().Round(0)
	virtual.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(now)) //nolint:forbidigo // it only sets the clock
		n := &Net{t: t, wire: hosttest.New(t), name: Network()}
		defer n.close()
		f(t, n)
	})
}

// Net is a simulated network of nodes in virtual time: see [Virtual]. At first it has no latency and loses nothing.
// What changes it takes effect at once, for packets that are sent from then on. Its methods belong into the test's own
// goroutine.
type Net struct {
	t    *testing.T
	wire *hosttest.Network
	name string

	nodes  []*p2p.Node
	killed map[*p2p.Node]bool
	dying  sync.WaitGroup
}

// Name is the name of the network that the nodes belong to.
func (n *Net) Name() string { return n.name }

// Node makes a node of this network at an address of its own, with the options after those of [Options]. The test
// starts it, and tells it where to join; the network closes it. Most tests want [Net.Start].
func (n *Net) Node(opts ...p2p.Option) *p2p.Node {
	n.t.Helper()
	return n.node(n.wire.Option(), opts)
}

func (n *Net) node(connect libp2p.Option, opts []p2p.Option) *p2p.Node {
	return n.nodeAt(hosttest.Port, connect, opts)
}

func (n *Net) nodeAt(port int, connect libp2p.Option, opts []p2p.Option) *p2p.Node {
	node := p2p.NewNode(fmt.Sprintf(":%d", port), append(append(Options(n.name), p2p.WithLibp2pOptions(connect)), opts...)...)
	n.nodes = append(n.nodes, node)
	return node
}

// Again makes a node in the place of one that was started and then closed, or killed by [Net.Kill], as the same machine
// that starts again: it has the address, is behind the same router, and listens at the port, 0 for the usual one. The
// options come after those of [Options]; without [p2p.WithIdentity] or [p2p.WithHome] it is somebody else. The test
// starts it.
func (n *Net) Again(node *p2p.Node, port int, opts ...p2p.Option) *p2p.Node {
	n.t.Helper()
	return n.nodeAt(cmp.Or(port, hosttest.Port), n.wire.ReplaceOption(n.host(node)), opts)
}

// Start starts count nodes, which join through the first living node of the network, and returns when each of them has
// a neighbor: at that moment they may know nobody but the first. Before the start of a node it calls setup, if that is
// not nil, which registers services. The options come after those of [Options]. A node that does not start, or is alone
// for 30 s, fails the test at once.
func (n *Net) Start(count int, setup func(i int, n *p2p.Node), opts ...p2p.Option) []*p2p.Node {
	n.t.Helper()
	return n.start(count, setup, func() *p2p.Node { return n.Node(opts...) })
}

func (n *Net) start(count int, setup func(i int, n *p2p.Node), one func() *p2p.Node) []*p2p.Node {
	n.t.Helper()
	nodes := make([]*p2p.Node, count)
	for i := range nodes {
		first := n.first()
		nodes[i] = one()
		if setup != nil {
			setup(i, nodes[i])
		}
		if first != nil {
			if err := nodes[i].JoinNetwork(first.Addrs()[0].String()); err != nil {
				n.t.Fatalf("p2ptest: node %d: %v", i, err)
			}
		}
		if err := nodes[i].StartServer(); err != nil {
			n.t.Fatalf("p2ptest: node %d: %v", i, err)
		}
	}
	if len(n.living()) < 2 {
		return nodes
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), timeout)
	defer cancel()
	for i, node := range nodes {
		if err := node.AwaitPeers(ctx, 1); err != nil {
			n.t.Fatalf("p2ptest: node %d: %v", i, err)
		}
	}
	return nodes
}

// Latency sets how long a packet takes from one node to another, half a round trip: between the nodes named, or, when
// none is named, on the whole network.
func (n *Net) Latency(d time.Duration, between ...*p2p.Node) {
	n.t.Helper()
	if len(between) == 0 {
		n.wire.SetLatencyAll(d)
	}
	for i, a := range between {
		for _, b := range between[i+1:] {
			n.wire.SetLatency(n.host(a), n.host(b), d)
		}
	}
}

// Loss sets the share of packets that get lost, from 0 to 1: 0.01 is one in a hundred, which is much for a LAN.
func (n *Net) Loss(share float64) { n.wire.SetLossAll(share) }

// Partition parts the network: no packet gets from a node of one group to one of another, and nobody is told. A node
// that is in no group reaches all. It takes the place of an earlier partition.
func (n *Net) Partition(groups ...[]*p2p.Node) {
	n.t.Helper()
	parts := make([][]corehost.Host, len(groups))
	for i, g := range groups {
		for _, node := range g {
			parts[i] = append(parts[i], n.host(node))
		}
	}
	n.wire.Partition(parts...)
}

// Heal ends the partition. Latency and loss stay as they are.
func (n *Net) Heal() { n.wire.HealAll() }

// Kill ends a node as the failure of its machine does: from now on no packet leaves it, and the others have to notice.
// For an orderly end use the node's Close.
func (n *Net) Kill(node *p2p.Node) {
	n.t.Helper()
	n.wire.Unplug(n.host(node))
	if n.killed == nil {
		n.killed = map[*p2p.Node]bool{}
	}
	n.killed[node] = true
	n.dying.Go(func() { _ = node.Close() }) // it can only tell itself
}

// Await waits until problem returns "", and returns how long that took. It asks when nothing else is going on, every
// 10 ms. After the time given it fails the test with the problem.
func (n *Net) Await(within time.Duration, problem func() string) time.Duration {
	n.t.Helper()
	begin, tick := time.Now(), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		synctest.Wait()
		what := problem()
		if took := time.Since(begin); what == "" {
			return took
		} else if took >= within {
			n.t.Fatalf("p2ptest: after %v: %s", took, what)
		}
		<-tick.C
	}
}

// host returns the host of a started node.
func (n *Net) host(node *p2p.Node) corehost.Host {
	n.t.Helper()
	h := node.Host()
	if h == nil {
		n.t.Fatal("p2ptest: the node is not started")
	}
	return h
}

// living returns the nodes that run.
func (n *Net) living() []*p2p.Node {
	return slices.DeleteFunc(slices.Clone(n.nodes), func(node *p2p.Node) bool {
		return n.killed[node] || node.Host() == nil || errors.Is(node.JoinNetwork(), p2p.ErrClosed)
	})
}

func (n *Net) first() *p2p.Node {
	if all := n.living(); len(all) > 0 {
		return all[0]
	}
	return nil
}

// close ends the nodes side by side, and then the network.
func (n *Net) close() {
	for i, node := range n.nodes {
		if !n.killed[node] {
			n.dying.Go(func() {
				if err := node.Close(); err != nil {
					n.t.Errorf("p2ptest: close node %d: %v", i, err)
				}
			})
		}
	}
	n.dying.Wait()
	n.wire.Close()
}
