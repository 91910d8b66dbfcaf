package control

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/cmd/p2p/internal/testservice"
	"github.com/lynn9388/p2p/p2ptest"
)

// served is a node with the API, beside a second node that offers a service.
type served struct {
	ControlServiceClient
	conn   *grpc.ClientConn
	node   *p2p.Node // has the API
	other  *p2p.Node // offers the service
	server *Server
	home   string
}

func newServed(t *testing.T, opts ...p2p.Option) *served {
	t.Helper()
	network := p2ptest.Network()
	s := &served{home: filepath.Join(shortDir(t), "home")}
	s.other = startNode(t, network, nil)
	s.node = startNode(t, network, s.other, append([]p2p.Option{p2p.WithHome(s.home), p2p.WithDiscoveryTimeout(500 * time.Millisecond)}, opts...)...)
	s.server = NewServer(Config{
		Node: s.node, Name: "first", Version: "v0", Network: "net", Home: s.home, Started: time.Now(), Logger: slog.New(slog.DiscardHandler),
		Access: func() string { return "friends" }, Share: func() string { return "here" }, Diagnose: func() []string { return []string{"all is well"} },
	})
	l := listen(t, s.home)
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(l) }()
	conn, err := Dial(t.Context(), s.home)
	if err != nil {
		t.Fatal(err)
	}
	s.conn, s.ControlServiceClient = conn, NewControlServiceClient(conn)
	t.Cleanup(func() {
		_ = conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) //nolint:usetesting // t.Context() has ended in a cleanup
		defer cancel()
		s.server.Shutdown(ctx)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// startNode starts a node. The one that joins nobody offers the service; the other waits until it is a neighbor and the
// service is known.
func startNode(t *testing.T, network string, join *p2p.Node, opts ...p2p.Option) *p2p.Node {
	t.Helper()
	n := p2p.NewNode("localhost:0", append(append(p2ptest.Options(network), p2p.WithName("twin")), opts...)...)
	if join == nil {
		testservice.RegisterShapeServiceServer(n, testservice.Server{})
	} else if err := n.JoinNetwork(join.Addrs()[0].String()); err != nil {
		t.Fatal(err)
	}
	if err := n.StartServer(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	if join == nil {
		return n
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	events := n.PeerEvents(ctx)
	known := func() bool {
		return slices.ContainsFunc(n.Peers(), func(p p2p.PeerInfo) bool { return p.State == p2p.StateNeighbor && len(p.Services) > 0 })
	}
	if known() {
		return n
	}
	for range events {
		if known() {
			return n
		}
	}
	t.Fatal("the nodes do not find each other")
	return nil
}

func (s *served) otherID() string { return s.other.ID().String() }
