package p2p_test

import (
	"context"
	"testing"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/p2ptest"
)

// BenchmarkFace compares a call through the node's own face, and by the service's name, with one to the named peer, over
// the same tunnel.
func BenchmarkFace(b *testing.B) {
	srv := startBenchServer(b)
	n := p2p.NewNode("127.0.0.1:0", p2ptest.Options(srv.Network)...)
	if err := n.JoinNetwork(srv.Node[0]); err != nil {
		b.Fatal(err)
	}
	if err := n.StartServer(); err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	at := n.Peer(srv.Node[0])
	arms := []arm{{name: "peer", cc: at}, {name: "node", cc: n}, {name: "service", cc: n.Service("bench.Bench")}}
	compare(b, arms, func(ctx context.Context, a arm) (sample, error) { return unary(ctx, a, 64, 16, slice) })
}
