package p2p_test

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/p2ptest"
)

// panicker panics when it greets.
type panicker struct {
	pb.UnimplementedGreeterServiceServer
}

func (panicker) Greet(context.Context, *pb.GreetRequest) (*pb.GreetResponse, error) {
	panic("at the disco")
}

// A panic of a handler ends that call alone, and is counted.
func TestWithMetrics_CountsWhatANodeSurvivesAndRefuses(t *testing.T) {
	reg := prometheus.NewRegistry()
	nodes := p2ptest.Start(t, 2, func(_ int, n *p2p.Node) {
		pb.RegisterGreeterServiceServer(n, panicker{})
		n.RegisterService(&benchDesc, nil)
	}, p2p.WithMetrics(reg), p2p.WithAuthorizer(func(_ context.Context, _ p2p.PeerInfo, method string) error {
		if method == "/bench.Bench/Echo" {
			return status.Error(codes.PermissionDenied, "not this one")
		}
		return nil
	}))
	peer := nodes[0].Peer(nodes[1].ID().String())
	for range 3 {
		if _, err := nodetest.Greet(t, peer); status.Code(err) != codes.Internal {
			t.Errorf("a handler that panics: %v, want Internal", err)
		}
	}
	if err := peer.Invoke(t.Context(), "/bench.Bench/Echo", &pb.GreetRequest{}, &pb.GreetResponse{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a refused call: %v", err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			got[f.GetName()] += m.GetCounter().GetValue()
		}
	}
	if got["p2p_grpcstream_panics_total"] != 3 || got["p2p_grpcstream_refused_calls_total"] != 1 {
		t.Errorf("%v panics and %v refused calls were counted, want 3 and 1", got["p2p_grpcstream_panics_total"], got["p2p_grpcstream_refused_calls_total"])
	}
	if _, ok := got["libp2p_swarm_connections_opened_total"]; !ok {
		t.Error("libp2p's metrics are missing")
	}
}
