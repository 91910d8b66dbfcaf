// Package p2ptest starts networks of nodes inside a test.
//
//	nodes := p2ptest.Start(t, 3, func(i int, n *p2p.Node) {
//		pb.RegisterGreeterServer(n, greeter{})
//	})
//	reply, err := pb.NewGreeterClient(nodes[0].Peer(nodes[2].ID().String())).SayHello(t.Context(), req)
//
// [Start] uses the machine's loopback and its clock. [Virtual] simulates both, so that a test can have latency, loss,
// partitions and nodes that die, and take no longer than its work does:
//
//	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
//		nodes := net.Start(5, setup)
//		net.Latency(50 * time.Millisecond)
//		net.Partition(nodes[:2], nodes[2:])
//		time.Sleep(time.Minute)
//		net.Heal()
//		net.Converge(15 * time.Second)
//	})
//
// Nodes may be behind firewalls and NATs, see [Net.Router]:
//
//	relay := net.Router(hosttest.Open).Start(1, nil, p2p.Relay(), p2p.WithOpen())[0]
//	home := net.Router(hosttest.PortRestricted)
//	nodes := home.Start(1, setup, p2p.WAN(relay.Addrs()[0].String()), p2p.WithOpen())
//	home.Renumber()
package p2ptest

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p"
)

// timeout bounds how long Start waits for the nodes to become neighbors.
const timeout = 30 * time.Second

// Network returns a network name that no other test uses.
func Network() string { return "test-" + strings.ToLower(rand.Text()) }

// Options returns what a node of a test needs: a network of its own, no multicast on the machine's links, a router that
// is left alone, silence, and a short shutdown.
func Options(network string) []p2p.Option {
	return []p2p.Option{
		p2p.WithNetwork(network),
		p2p.WithDiscovery(),
		p2p.WithoutPortMapping(),
		p2p.WithLogger(slog.New(slog.DiscardHandler)),
		p2p.WithShutdownTimeout(time.Second),
	}
}

// Start starts count nodes in this process, on free ports of localhost, in a network of their own, and returns when
// each has a neighbor. Before the start of a node it calls setup, if that is not nil, which registers services. The
// options come after those of [Options]. The nodes are closed when the test ends; a node that does not start, or is
// alone for 30 s, fails the test at once, so Start belongs into the test's own goroutine.
func Start(tb testing.TB, count int, setup func(i int, n *p2p.Node), opts ...p2p.Option) []*p2p.Node {
	tb.Helper()
	network := Network()
	nodes := make([]*p2p.Node, count)
	for i := range nodes {
		n := p2p.NewNode("localhost:0", append(Options(network), opts...)...)
		if setup != nil {
			setup(i, n)
		}
		if i > 0 {
			if err := n.JoinNetwork(nodes[0].Addrs()[0].String()); err != nil {
				tb.Fatalf("p2ptest: node %d: %v", i, err)
			}
		}
		if err := n.StartServer(); err != nil {
			tb.Fatalf("p2ptest: node %d: %v", i, err)
		}
		tb.Cleanup(func() {
			if err := n.Close(); err != nil {
				tb.Errorf("p2ptest: close node %d: %v", i, err)
			}
		})
		nodes[i] = n
	}
	if count < 2 {
		return nodes
	}
	ctx, cancel := context.WithTimeout(tb.Context(), timeout)
	defer cancel()
	for i, n := range nodes {
		if err := n.AwaitPeers(ctx, 1); err != nil {
			tb.Fatalf("p2ptest: node %d: %v", i, err)
		}
	}
	return nodes
}
