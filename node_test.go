package p2p_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
)

func quiet() p2p.Option { return p2p.WithLogger(slog.New(slog.DiscardHandler)) }

func TestNewNode_KeepsTheErrorOfABadAddress(t *testing.T) {
	for _, bad := range []string{"", "localhost", "localhost:http", "localhost:70000", "example.org:9388", "/ip4/1.2.3/tcp/1", "[::1:9388"} {
		t.Run(bad, func(t *testing.T) {
			n := p2p.NewNode(bad, quiet())
			for what, err := range map[string]error{
				"JoinNetwork": n.JoinNetwork("localhost:9388"),
				"StartServer": n.StartServer(),
				"Wait":        n.Wait(),
			} {
				if err == nil || !strings.Contains(err.Error(), `"`+bad+`"`) {
					t.Errorf("%s returned %v, want an error that names %q", what, err, bad)
				}
			}
		})
	}
}

func TestNewNode_KeepsTheErrorsOfBadOptions(t *testing.T) {
	n := p2p.NewNode("localhost:0", quiet(),
		p2p.WithName(strings.Repeat("n", p2p.MaxNameLen+1)), p2p.WithNetwork("No Such"), p2p.WithNeighbors(3, 2),
		p2p.WithHome(""), p2p.WithIdentity(nil), p2p.WithAllow("x"), p2p.WithAllowFile(""), p2p.WithAuthorizer(nil),
		p2p.WithDiscovery(nil), p2p.WithDiscoveryTimeout(0), p2p.WithShutdownTimeout(-1), p2p.WithLogger(nil), p2p.WithMetrics(nil), nil)
	err := n.StartServer()
	if err == nil {
		t.Fatal("StartServer accepted them")
	}
	for _, want := range []string{
		"WithName", "WithNetwork", "WithNeighbors", "WithHome", "WithIdentity", "WithAllow:", "WithAllowFile",
		"WithAuthorizer", "WithDiscovery:", "WithDiscoveryTimeout", "WithShutdownTimeout", "WithLogger", "WithMetrics", "option is nil",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}

func TestNewNode_RefusesOptionsThatContradict(t *testing.T) {
	for name, opts := range map[string][]p2p.Option{
		"open and closed": {p2p.WithOpen(), p2p.WithAllow()},
		"open and decided": {p2p.WithOpen(), p2p.WithAuthorizer(func(context.Context, p2p.PeerInfo, string) error {
			return nil
		})},
	} {
		if err := p2p.NewNode("localhost:0", append(opts, quiet())...).StartServer(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestNode_BeforeTheStart(t *testing.T) {
	n := p2p.NewNode("localhost:0", quiet())
	if n.ID() != "" || n.Addrs() != nil || n.Host() != nil || n.Peers() != nil {
		t.Errorf("ID %q, Addrs %v, Host %v, Peers %v: want nothing", n.ID(), n.Addrs(), n.Host(), n.Peers())
	}
	for range n.PeerEvents(t.Context()) {
		t.Error("an event")
	}
	began := time.Now()
	_, err := grpc_health_v1.NewHealthClient(n.Peer("12D3KooWRrNnNfVdUWi9vd6QMoGwhAbv8i7GEB1mjuV1hLLuFs1d")).Check(t.Context(), nil)
	_, newErr := n.NewClient("x")
	for what, err := range map[string]error{
		"call": err, "Wait": n.Wait(), "AwaitPeers": n.AwaitPeers(t.Context(), 1), "NewClient": newErr,
		"Disconnect": n.Disconnect("12D3KooWRrNnNfVdUWi9vd6QMoGwhAbv8i7GEB1mjuV1hLLuFs1d"),
		"Forget":     n.Forget("12D3KooWRrNnNfVdUWi9vd6QMoGwhAbv8i7GEB1mjuV1hLLuFs1d"),
	} {
		if !errors.Is(err, p2p.ErrNotStarted) {
			t.Errorf("%s: %v, want ErrNotStarted", what, err)
		}
	}
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("the call's code is %v", status.Code(err))
	}
	if d := time.Since(began); d > p2p.DefaultDiscoveryTimeout/2 {
		t.Errorf("it took %v: something waited", d)
	}
}

func TestNode_JoinNetworkRefusesWhatIsNoPlace(t *testing.T) {
	n := p2p.NewNode("localhost:0", quiet())
	for _, bad := range []string{"", "localhost", ":9388", "localhost:0", "nobody@localhost:9388", "/ip4/127.0.0.1/tcp/x"} {
		if err := n.JoinNetwork("localhost:9388", bad); err == nil || !strings.Contains(err.Error(), `"`+bad+`"`) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestNode_CloseBeforeTheStart(t *testing.T) {
	n := p2p.NewNode("localhost:0", quiet())
	for range 2 {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for what, err := range map[string]error{"StartServer": n.StartServer(), "Run": n.Run(t.Context()), "JoinNetwork": n.JoinNetwork("localhost:1")} {
		if !errors.Is(err, p2p.ErrClosed) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed, which is net.ErrClosed", what, err)
		}
	}
	if err := n.Wait(); err != nil {
		t.Errorf("Wait: %v", err)
	}
}

func TestNode_AFailedStartIsFinal(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	n := p2p.NewNode(taken.Addr().String(), quiet(), p2p.WithDiscovery())
	first := n.StartServer()
	if first == nil || !strings.Contains(first.Error(), taken.Addr().String()) {
		t.Fatalf("StartServer at a taken port: %v", first)
	}
	if got := n.Wait(); got == nil || got.Error() != first.Error() {
		t.Errorf("Wait: %v, want %v", got, first)
	}
	if err := n.StartServer(); err == nil || err.Error() != first.Error() {
		t.Errorf("a second StartServer: %v, want %v", err, first)
	}
	if err := n.Run(t.Context()); err == nil || err.Error() != first.Error() {
		t.Errorf("Run: %v, want %v", err, first)
	}
	if err := n.Invoke(t.Context(), "/a.B/C", nil, nil); !errors.Is(err, p2p.ErrNotStarted) {
		t.Errorf("a call: %v", err)
	}
}
