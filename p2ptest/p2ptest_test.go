package p2ptest_test

import (
	"testing"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/p2ptest"
)

func TestStart_EveryNodeCallsEveryOther(t *testing.T) {
	var set []int
	nodes := p2ptest.Start(t, 3, func(i int, _ *p2p.Node) { set = append(set, i) }, p2p.WithName("tester"))
	if len(nodes) != 3 || len(set) != 3 {
		t.Fatalf("%d nodes, set up %v", len(nodes), set)
	}
	for _, from := range nodes {
		for _, to := range nodes {
			target := to.ID().String()
			if to != from { // a connection may not be there yet: each knows the first only
				target = to.Addrs()[0].String()
			}
			_, err := grpc_health_v1.NewHealthClient(from.Peer(target)).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
			if err != nil {
				t.Errorf("%s calls %s: %v", from.ID(), to.ID(), err)
			}
		}
	}
}

func TestStart_NetworksOfTestsDoNotMix(t *testing.T) {
	if a, b := p2ptest.Network(), p2ptest.Network(); a == b {
		t.Errorf("two networks are named %q", a)
	}
	a, b := p2ptest.Start(t, 1, nil)[0], p2ptest.Start(t, 1, nil)[0]
	_, err := grpc_health_v1.NewHealthClient(a.Peer(b.Addrs()[0].String())).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err == nil {
		t.Error("a node called one of another network")
	}
}

func TestStart_ClosesWhenTheTestEnds(t *testing.T) {
	var n *p2p.Node
	t.Run("inner", func(t *testing.T) { n = p2ptest.Start(t, 1, nil)[0] })
	if err := n.StartServer(); err == nil {
		t.Error("the node could be used after its test")
	}
}
