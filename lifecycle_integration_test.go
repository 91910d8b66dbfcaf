package p2p_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/p2ptest"
)

// stage is a time in the life of a node.
type stage int

const (
	before stage = iota
	running
	closed
	neverStarted // and closed
)

func (s stage) String() string {
	return []string{"before", "running", "closed", "closed without a start"}[s]
}

// node returns a node that is at the stage.
func (s stage) node(t *testing.T) *p2p.Node {
	t.Helper()
	n := p2p.NewNode("localhost:0", p2ptest.Options(p2ptest.Network())...)
	pb.RegisterGreeterServiceServer(n, nodetest.Greeter{})
	if s == running || s == closed {
		if err := n.StartServer(); err != nil {
			t.Fatal(err)
		}
	}
	if s == closed || s == neverStarted {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

const somebody = "12D3KooWRrNnNfVdUWi9vd6QMoGwhAbv8i7GEB1mjuV1hLLuFs1d"

// outcome says in a word how something ended.
func outcome(err error) string {
	switch {
	case err == nil:
		return "nil"
	case errors.Is(err, p2p.ErrNotStarted):
		return "not started"
	case errors.Is(err, p2p.ErrStarted):
		return "started"
	case errors.Is(err, p2p.ErrClosed) && errors.Is(err, net.ErrClosed):
		return "closed"
	case errors.Is(err, context.DeadlineExceeded):
		return "blocks"
	case strings.HasSuffix(err.Error(), somebody+" is not known"):
		return "not known"
	case strings.Contains(err.Error(), "no address of it"):
		return "no address"
	case strings.Contains(err.Error(), "no home"):
		return "no home"
	default:
		return err.Error()
	}
}

// lifecycleRow is a row of the table in the package's doc.
type lifecycleRow struct {
	what string
	do   func(t *testing.T, n *p2p.Node) string
	want [4]string // before, running, closed, closed without a start
}

// moment is how long something may block that blocks for ever.
const moment = 300 * time.Millisecond

// lifecycle is the table. What blocks for longer than limit is said to block.
func lifecycle(limit time.Duration) []lifecycleRow {
	within := func(t *testing.T, limit time.Duration) context.Context {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		t.Cleanup(cancel)
		return ctx
	}
	return []lifecycleRow{
		{"RegisterService", func(_ *testing.T, n *p2p.Node) (got string) {
			defer func() {
				if r := recover(); r != nil {
					got = "panics"
				}
			}()
			n.RegisterService(&benchDesc, nil)
			return "registers"
		}, [4]string{"registers", "panics", "panics", "panics"}},
		{
			"JoinNetwork", func(_ *testing.T, n *p2p.Node) string { return outcome(n.JoinNetwork("localhost:1")) },
			[4]string{"nil", "nil", "closed", "closed"},
		},
		{
			"StartServer", func(_ *testing.T, n *p2p.Node) string { return outcome(n.StartServer()) },
			[4]string{"nil", "started", "closed", "closed"},
		},
		{
			"Run", func(t *testing.T, n *p2p.Node) string { return outcome(n.Run(within(t, moment))) },
			[4]string{"nil", "started", "closed", "closed"},
		},
		{"Wait", func(t *testing.T, n *p2p.Node) string {
			done := make(chan error, 1)
			go func() { done <- n.Wait() }()
			select {
			case err := <-done:
				return outcome(err)
			case <-within(t, limit).Done():
				return "blocks"
			}
		}, [4]string{"not started", "blocks", "nil", "nil"}},
		{
			"Invoke", func(t *testing.T, n *p2p.Node) string { _, err := nodetest.Greet(t, n); return outcome(err) },
			[4]string{"not started", "nil", "closed", "closed"},
		},
		{"NewStream", func(t *testing.T, n *p2p.Node) string {
			_, err := grpc_health_v1.NewHealthClient(n.Peer(cmp.Or(n.ID().String(), somebody))).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
			return outcome(err)
		}, [4]string{"not started", "nil", "closed", "closed"}},
		{"Service", func(t *testing.T, n *p2p.Node) string {
			_, err := nodetest.Greet(t, n.Service(pb.GreeterService_ServiceDesc.ServiceName))
			return outcome(err)
		}, [4]string{"not started", "nil", "closed", "closed"}},
		{"NewClient", func(t *testing.T, n *p2p.Node) string {
			cc, err := n.NewClient(somebody)
			if err == nil {
				t.Cleanup(func() { _ = cc.Close() })
			}
			return outcome(err)
		}, [4]string{"not started", "nil", "closed", "closed"}},
		{
			"Disconnect", func(_ *testing.T, n *p2p.Node) string { return outcome(n.Disconnect(somebody)) },
			[4]string{"not started", "not known", "closed", "closed"},
		},
		{
			"Forget", func(_ *testing.T, n *p2p.Node) string { return outcome(n.Forget(somebody)) },
			[4]string{"not started", "not known", "closed", "closed"},
		},
		{
			"Connect", func(t *testing.T, n *p2p.Node) string { return outcome(n.Connect(within(t, limit), somebody)) },
			[4]string{"not started", "no address", "closed", "closed"},
		},
		{
			"Pin", func(_ *testing.T, n *p2p.Node) string { return outcome(n.Pin("x", somebody)) },
			[4]string{"not started", "no home", "closed", "closed"},
		},
		{
			"Pinned", func(_ *testing.T, n *p2p.Node) string { _, ok := n.Pinned("x"); return fmt.Sprint(ok) },
			[4]string{"false", "false", "false", "false"},
		},
		{"Instances", func(t *testing.T, n *p2p.Node) string {
			_, _ = nodetest.Greet(t, n) // waits until it is known, if ever
			return fmt.Sprint(len(known(n, pb.GreeterService_ServiceDesc.ServiceName)))
		}, [4]string{"0", "1", "0", "0"}},
		{
			"AwaitPeers", func(t *testing.T, n *p2p.Node) string { return outcome(n.AwaitPeers(within(t, limit), 1)) },
			[4]string{"not started", "blocks", "closed", "closed"},
		},
		{"PeerEvents", func(t *testing.T, n *p2p.Node) string {
			ctx := within(t, limit)
			for range n.PeerEvents(ctx) {
				return "an event"
			}
			return outcome(ctx.Err())
		}, [4]string{"nil", "blocks", "nil", "nil"}},
		{
			"Peers", func(_ *testing.T, n *p2p.Node) string { return fmt.Sprint(len(n.Peers())) },
			[4]string{"0", "0", "0", "0"},
		},
		{"ID, Addrs, Host", func(_ *testing.T, n *p2p.Node) string {
			return fmt.Sprint(n.ID() != "", len(n.Addrs()) > 0, n.Host() != nil)
		}, [4]string{"false false false", "true true true", "true true true", "false false false"}},
		{
			"Close", func(_ *testing.T, n *p2p.Node) string { return outcome(n.Close()) },
			[4]string{"nil", "nil", "nil", "nil"},
		},
	}
}

func TestNode_TheLifecycleTable(t *testing.T) {
	soon := lifecycle(moment)
	for i, row := range lifecycle(5 * time.Second) {
		for s := before; s <= neverStarted; s++ {
			t.Run(row.what+" "+s.String(), func(t *testing.T) {
				t.Parallel()
				do := row.do
				if row.want[s] == "blocks" {
					do = soon[i].do
				}
				if got := do(t, s.node(t)); got != row.want[s] {
					t.Errorf("%q, want %q", got, row.want[s])
				}
			})
		}
	}
}

func TestNode_SetServingBeforeTheStartIsKept(t *testing.T) {
	service := pb.GreeterService_ServiceDesc.ServiceName
	n := before.node(t)
	n.SetServing(service, false)
	if err := n.StartServer(); err != nil {
		t.Fatal(err)
	}
	health := grpc_health_v1.NewHealthClient(n.Peer(n.ID().String()))
	for _, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{
		grpc_health_v1.HealthCheckResponse_NOT_SERVING, grpc_health_v1.HealthCheckResponse_SERVING,
	} {
		got, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || got.GetStatus() != want {
			t.Fatalf("%v, %v, want %v", got.GetStatus(), err, want)
		}
		n.SetServing(service, true)
	}
}

// A call that had to be canceled is told by Close, and by Run.
func TestNode_CloseAndRunTellOfCanceledCalls(t *testing.T) {
	for name, live := range map[string]func(ctx context.Context, n *p2p.Node) error{
		"Run": func(ctx context.Context, n *p2p.Node) error { return n.Run(ctx) },
		"Close": func(ctx context.Context, n *p2p.Node) error {
			if err := n.StartServer(); err != nil {
				return err
			}
			<-ctx.Done()
			return n.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := p2p.NewNode("localhost:0", append(p2ptest.Options(p2ptest.Network()), p2p.WithShutdownTimeout(0))...)
			n.RegisterService(&benchDesc, nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- live(ctx, n) }()
			poll.Until(t, 10*time.Second, func() string {
				if n.ID() == "" {
					return "the node did not start"
				}
				return ""
			})
			s, err := n.NewStream(t.Context(), &benchDesc.Streams[0], "/bench.Bench/Down")
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.SendMsg(wrapperspb.UInt32(1)), s.RecvMsg(new(wrapperspb.BytesValue))); err != nil {
				t.Fatal(err)
			}
			cancel()
			if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, want that calls were canceled", err)
			}
		})
	}
}

// namingHandler is a log handler that says whose record it is.
type namingHandler struct {
	slog.Handler
	node *p2p.Node
	said chan string
}

func (namingHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h *namingHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "listening" || r.Level == slog.LevelError {
		h.said <- h.node.ID().String()
	}
	return nil
}

// askingHandler asks the node for its ID at each record, and a part that has found a peer for more, which waits for the
// start.
type askingHandler struct {
	slog.Handler
	node  *p2p.Node
	asked atomic.Bool
}

func (*askingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *askingHandler) Handle(_ context.Context, r slog.Record) error {
	h.node.ID()
	if r.Message == "peer" {
		h.node.Pinned("somebody")
		h.asked.Store(true)
	}
	return nil
}

// The parts that run when a later one fails may log.
func TestNode_ALoggerMayAskForTheIDWhileTheStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	network, home := p2ptest.Network(), p2p.WithHome(filepath.Join(t.TempDir(), "home"))
	before := p2p.NewNode("localhost:0", append(p2ptest.Options(network), home)...)
	other := p2p.NewNode("localhost:0", p2ptest.Options(network)...)
	start(t, other)
	start(t, before)
	if err := before.JoinNetwork(other.Addrs()[0].String()); err != nil {
		t.Fatal(err)
	}
	if err := before.AwaitPeers(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	h := &askingHandler{Handler: slog.DiscardHandler} // is told of the neighbor that is remembered
	h.node = p2p.NewNode(taken.Addr().String(), append(p2ptest.Options(network), home, p2p.WithLogger(slog.New(h)))...)
	started := make(chan error, 1)
	go func() { started <- h.node.StartServer() }()
	select {
	case err := <-started:
		if err == nil || h.node.Wait() == nil || !h.asked.Load() {
			t.Errorf("a start at a port that is taken: %v; asked while it failed: %v", err, h.asked.Load())
		}
		if err := h.node.Close(); err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the start hangs")
	}
}

func TestNode_ALoggerMayAskForTheID(t *testing.T) {
	h := &namingHandler{Handler: slog.DiscardHandler, said: make(chan string, 1)}
	n := p2p.NewNode("localhost:0", append(p2ptest.Options(p2ptest.Network()), p2p.WithLogger(slog.New(h)))...)
	h.node = n
	started := make(chan error, 1)
	go func() { started <- n.StartServer() }()
	select {
	case err := <-started:
		if got := <-h.said; err != nil || got != n.ID().String() {
			t.Errorf("it said %q: %v", got, err)
		}
		_ = n.Close()
	case <-time.After(10 * time.Second):
		t.Fatal("the start hangs")
	}
	bad := p2p.NewNode("nowhere", p2p.WithLogger(slog.New(h)))
	h.node = bad
	go func() { started <- bad.StartServer() }()
	select {
	case err := <-started:
		if got := <-h.said; err == nil || got != "" {
			t.Errorf("it said %q: %v", got, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the failing start hangs")
	}
}
