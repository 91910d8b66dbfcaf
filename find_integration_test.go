package p2p_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/p2ptest"
)

// lineOf is how many nodes stand in a line of introductions.
const lineOf = 30

// slack is what a busy machine may add to a figure that is looked at.
const slack = 4

// withoutCatalogs has a node tell nobody who offers a service.
func withoutCatalogs() p2p.Option {
	return p2p.WithAuthorizer(func(_ context.Context, _ p2p.PeerInfo, method string) error {
		if strings.HasSuffix(method, "/FindService") {
			return status.Error(codes.PermissionDenied, "switched off")
		}
		return nil
	})
}

// line starts nodes, each joining through the one started before only. The last one in the line offers the greeter.
// backward starts with that one, so that the first in the line, which calls it, is the newcomer. It returns the nodes in
// the line's order, and when the newest had joined.
func line(t *testing.T, backward bool, opts ...p2p.Option) (nodes []*p2p.Node, joined time.Time) {
	t.Helper()
	nodes = make([]*p2p.Node, lineOf)
	network := p2ptest.Network()
	var before *p2p.Node
	for i := range nodes {
		at := i
		if backward {
			at = lineOf - 1 - i
		}
		n := p2p.NewNode("localhost:0", append(p2ptest.Options(network), opts...)...)
		if at == lineOf-1 {
			pb.RegisterGreeterServiceServer(n, nodetest.Greeter{Who: "last"})
		}
		if before != nil {
			if err := n.JoinNetwork(before.Addrs()[0].String()); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.StartServer(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		if before != nil {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			if err := n.AwaitPeers(ctx, 1); err != nil {
				t.Fatalf("node %d: %v", at, err)
			}
			cancel()
		}
		nodes[at], before = n, n
	}
	return nodes, time.Now()
}

// TestFind_AcrossALineOfIntroductions: the first of thirty nodes, each of which was introduced by the next only, calls a
// service of the last by its name.
func TestFind_AcrossALineOfIntroductions(t *testing.T) {
	patient := p2p.WithDiscoveryTimeout(time.Minute) // the time that it takes is logged
	for _, test := range []struct {
		name     string
		backward bool
		opts     []p2p.Option
	}{
		{"catalogs", false, nil},
		// With four neighbors at most, the last is no neighbor's neighbor.
		{"table only", true, []p2p.Option{p2p.WithDHT(), withoutCatalogs(), p2p.WithNeighbors(2, 4)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			nodes, joined := line(t, test.backward, append(test.opts, patient)...)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			res, err := pb.NewGreeterServiceClient(nodes[0]).Greet(ctx, &pb.GreetRequest{Name: "x"})
			if want := "last " + nodes[0].ID().String(); err != nil || res.GetText() != want {
				t.Errorf("%q, %v, want %q", res.GetText(), err, want)
			}
			t.Logf("called by name %v after joining, want 5 s", time.Since(joined).Round(time.Millisecond))
		})
	}
}
