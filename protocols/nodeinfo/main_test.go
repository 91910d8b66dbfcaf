package nodeinfo

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/lynn9388/p2p/grpcstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial serves what register registers in memory and returns a channel to it, and what ends both.
func dial(tb testing.TB, register func(*grpc.Server)) (cc *grpc.ClientConn, stop func()) {
	tb.Helper()
	lis := bufconn.Listen(1 << 16)
	srv := grpc.NewServer()
	register(srv)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	cc, err := grpc.NewClient("passthrough:///memory",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		tb.Fatal(err)
	}
	return cc, func() {
		_ = cc.Close()
		srv.Stop()
		if err := <-served; err != nil {
			tb.Error(err)
		}
	}
}

// node is a Node that says what it is told to say.
type node struct {
	info     Info
	services map[string]grpc.ServiceInfo
	stats    []grpcstream.MethodStats
	world    *world // nil: nobody is there, and nothing changes
}

func (n node) Info() Info                                  { return n.info }
func (n node) GetServiceInfo() map[string]grpc.ServiceInfo { return n.services }
func (n node) Stats() []grpcstream.MethodStats             { return n.stats }
func (n node) Neighbors() []*Neighbor                      { return n.world.all() }

func (n node) Changes(context.Context) <-chan struct{} {
	if n.world == nil {
		return nil
	}
	return n.world.changed
}

// world is what a node has for neighbors.
type world struct {
	mu      sync.Mutex
	now     []*Neighbor
	changed chan struct{}
}

func newWorld(now ...*Neighbor) *world { return &world{now: now, changed: make(chan struct{}, 1)} }

func (w *world) all() []*Neighbor {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.now)
}

func (w *world) become(now ...*Neighbor) {
	w.mu.Lock()
	w.now = now
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// serving serves n and returns a channel to it.
func serving(t *testing.T, n Node) *grpc.ClientConn {
	t.Helper()
	cc, stop := dial(t, func(s *grpc.Server) { Register(s, n) })
	t.Cleanup(stop)
	return cc
}

// a liar is a server that breaks the protocol.
type liar struct {
	UnimplementedNodeInfoServiceServer
	payload  []byte
	info     *InfoResponse
	services []*Service
	stats    []*MethodStats
	changes  []*WatchResponse
	delay    time.Duration
}

func (l liar) Ping(ctx context.Context, _ *PingRequest) (*PingResponse, error) {
	if l.delay > 0 {
		select {
		case <-time.After(l.delay):
		case <-ctx.Done(): // the caller's deadline, too: an answer could come before it
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	return &PingResponse{Payload: l.payload}, nil
}

func (l liar) Info(context.Context, *InfoRequest) (*InfoResponse, error) { return l.info, nil }

func (l liar) Services(context.Context, *ServicesRequest) (*ServicesResponse, error) {
	return &ServicesResponse{Services: l.services}, nil
}

func (l liar) Stats(context.Context, *StatsRequest) (*StatsResponse, error) {
	return &StatsResponse{Methods: l.stats}, nil
}

func (l liar) Watch(_ *WatchRequest, s grpc.ServerStreamingServer[WatchResponse]) error {
	for _, c := range l.changes {
		if err := s.Send(c); err != nil {
			return err
		}
	}
	return nil
}

// lying serves l and returns a channel to it.
func lying(t *testing.T, l liar) *grpc.ClientConn {
	t.Helper()
	cc, stop := dial(t, func(s *grpc.Server) { RegisterNodeInfoServiceServer(s, l) })
	t.Cleanup(stop)
	return cc
}
