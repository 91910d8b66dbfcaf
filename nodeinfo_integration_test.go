package p2p_test

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/p2ptest"
	"github.com/lynn9388/p2p/protocols/nodeinfo"
)

func TestNodeInfo_StatsOfANode(t *testing.T) {
	nodes := p2ptest.Start(t, 2, func(i int, n *p2p.Node) {
		if i == 0 {
			pb.RegisterGreeterServiceServer(n, nodetest.Greeter{})
		}
	})
	for range 10 {
		mustGreet(t, nodes[1])
	}
	all, err := nodeinfo.Stats(t.Context(), nodes[1].Peer(nodes[0].ID().String()))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.Method != pb.GreeterService_Greet_FullMethodName {
			continue
		}
		if m.Calls != 10 || len(m.Errors) > 0 || m.P50 <= 0 || m.Max < m.P99 || m.BytesOut == 0 {
			t.Errorf("%+v", m)
		}
		return
	}
	t.Errorf("no account of the greeter in %v", all)
}

// A watch tells of a neighbor that comes with its service and goes, and ends when the node does.
func TestNodeInfo_WatchOfANode(t *testing.T) {
	network := p2ptest.Network()
	nodes := p2ptest.Start(t, 2, nil, p2p.WithNetwork(network))
	seen, watcher := nodes[0], nodes[1]
	late := p2p.NewNode("localhost:0", append(p2ptest.Options(network), p2p.WithName("late"))...)
	pb.RegisterGreeterServiceServer(late, nodetest.Greeter{})
	t.Cleanup(func() { _ = late.Close() })
	if err := late.JoinNetwork(seen.Addrs()[0].String()); err != nil {
		t.Fatal(err)
	}
	const starts, comes, goes, ends = "starts", "comes", "goes", "ends"
	stage := starts
	for c, err := range nodeinfo.Watch(t.Context(), watcher.Peer(seen.ID().String())) {
		switch {
		case err != nil && stage == ends:
			if status.Code(err) != codes.Unavailable {
				t.Errorf("it ended with %v, want Unavailable", err)
			}
			return
		case err != nil:
			t.Fatalf("before the node %s: %v", stage, err)
		case stage == starts:
			if len(c.GetNeighbors()) != 1 || c.GetNeighbors()[0].GetId() != watcher.ID().String() {
				t.Errorf("at first %v", c)
			}
			start(t, late)
			stage = comes
		case stage == comes && slices.ContainsFunc(c.GetNeighbors(), func(n *nodeinfo.Neighbor) bool {
			return n.GetId() == late.ID().String() && n.GetName() == "late" && slices.Equal(n.GetServices(), []string{"hello.v1.GreeterService"})
		}):
			if err := late.Close(); err != nil {
				t.Error(err)
			}
			stage = goes
		case stage == goes && slices.Contains(c.GetGone(), late.ID().String()):
			go func() { _ = seen.Close() }()
			stage = ends
		}
	}
	t.Errorf("it ended without an error, when the node %s", stage)
}
