package p2p_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/p2ptest"
)

// neighborsOf are the neighbors that a node has now.
func neighborsOf(n *p2p.Node) []peer.ID {
	var out []peer.ID
	for _, p := range n.Peers() {
		if p.State == p2p.StateNeighbor {
			out = append(out, p.ID)
		}
	}
	return out
}

// connected tells whether the graph of neighbors is in one piece, where an edge counts when both ends name it.
func connected(nodes []*p2p.Node) bool {
	edges := make(map[peer.ID][]peer.ID)
	for _, n := range nodes {
		edges[n.ID()] = neighborsOf(n)
	}
	seen := map[peer.ID]bool{nodes[0].ID(): true}
	for queue := []peer.ID{nodes[0].ID()}; len(queue) > 0; queue = queue[1:] {
		for _, q := range edges[queue[0]] {
			if _, alive := edges[q]; alive && !seen[q] && slices.Contains(edges[q], queue[0]) {
				seen[q] = true
				queue = append(queue, q)
			}
		}
	}
	return len(seen) == len(nodes)
}

func TestNetwork_FiftyNodesToldOfTheFirstOnly(t *testing.T) {
	const count = 50
	network := p2ptest.Network()
	var nodes []*p2p.Node
	t.Cleanup(func() { closeAll(t, nodes) })
	for i := range count {
		n := p2p.NewNode("localhost:0", p2ptest.Options(network)...)
		if i > 0 {
			if err := n.JoinNetwork("localhost:" + port(t, nodes[0])); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.StartServer(); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
	}
	began := time.Now()
	poll.Until(t, 2*time.Minute, func() string {
		for i, n := range nodes {
			if c := len(neighborsOf(n)); c < 5 || c > 20 {
				return fmt.Sprintf("node %d has %d neighbors of %d known, want between 5 and 20", i, c, len(n.Peers()))
			}
		}
		if !connected(nodes) {
			return "the graph is not connected"
		}
		return ""
	})
	t.Logf("%d nodes: between 5 and 20 neighbors each, in one piece, after %v", count, time.Since(began))

	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	dead, rest := nodes[:10], nodes[10:]
	for _, n := range dead {
		// The host alone: the node says goodbye to nobody.
		if err := n.Host().Close(); err != nil {
			t.Fatal(err)
		}
	}
	began = time.Now()
	poll.Until(t, 2*time.Minute, func() string {
		if !connected(rest) {
			return "the rest is not connected"
		}
		return ""
	})
	t.Logf("after ten died the rest is in one piece after %v", time.Since(began))
}

func port(t *testing.T, n *p2p.Node) string {
	t.Helper()
	for _, a := range n.Addrs() {
		if v, err := a.ValueForProtocol(ma.P_TCP); err == nil {
			return v
		}
	}
	t.Fatal("the node has no TCP address")
	return ""
}

func closeAll(t *testing.T, nodes []*p2p.Node) {
	done := make(chan error, len(nodes))
	for _, n := range nodes {
		go func() { done <- n.Close() }()
	}
	for range nodes {
		if err := <-done; err != nil {
			t.Logf("close: %v", err)
		}
	}
}

func TestNetwork_AwaitPeersEndsWithItsContext(t *testing.T) {
	n := p2ptest.Start(t, 1, nil)[0]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.AwaitPeers(ctx, 1); err == nil {
		t.Error("AwaitPeers of a lonely node returned nil")
	}
}

func TestDisconnect_ACallAfterItDialsAnew(t *testing.T) {
	nodes := p2ptest.Start(t, 2, func(_ int, n *p2p.Node) { n.RegisterService(&benchDesc, nil) })
	for i := range 30 {
		err := nodes[0].Peer(nodes[1].Addrs()[0].String()).Invoke(t.Context(), "/bench.Bench/Echo", wrapperspb.Bytes(nil), new(wrapperspb.BytesValue))
		if err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		if err := nodes[0].Disconnect(nodes[1].ID().String()); err != nil {
			t.Fatal(err)
		}
	}
}

// A node calls right after its start, when identify has had no time to take note of what it serves: it is a member for
// the node called, all the same.
func TestNode_IsAMemberFromItsFirstConnectionOn(t *testing.T) {
	done := make(chan struct{})
	held := libp2p.AddrsFactory(func(addrs []ma.Multiaddr) []ma.Multiaddr {
		if strings.Contains(string(debug.Stack()), "identify.(*idService).loop") { // where it learns what is new
			<-done
		}
		return addrs
	})
	name := p2ptest.Network()
	server := p2p.NewNode("localhost:0", p2ptest.Options(name)...)
	pb.RegisterGreeterServiceServer(server, nodetest.Greeter{})
	start(t, server)
	client := p2p.NewNode("localhost:0", append(p2ptest.Options(name), p2p.WithLibp2pOptions(held))...)
	start(t, client)
	t.Cleanup(func() { close(done) })

	mustGreet(t, client.Peer(server.Addrs()[0].String()))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := server.AwaitPeers(ctx, 1); err != nil {
		t.Error(err)
	}
}
