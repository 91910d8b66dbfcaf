package p2p_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/p2ptest"
)

func mustGreet(t *testing.T, cc grpc.ClientConnInterface) string {
	t.Helper()
	text, err := nodetest.Greet(t, cc)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestNode_CallsByServiceAndByPeer(t *testing.T) {
	nodes := p2ptest.Start(t, 3, func(i int, n *p2p.Node) {
		if i > 0 {
			pb.RegisterGreeterServiceServer(n, nodetest.Greeter{Who: fmt.Sprint(i)})
		}
	})
	me := nodes[0].ID().String()

	for i, n := range nodes[1:] {
		want := fmt.Sprintf("%d %s", i+1, me)
		for what, target := range map[string]string{"ID": n.ID().String(), "multiaddr": n.Addrs()[0].String(), "ID@host:port": n.ID().String() + "@localhost:" + port(t, n)} {
			if got := mustGreet(t, nodes[0].Peer(target)); got != want {
				t.Errorf("by %s: %q, want %q", what, got, want)
			}
		}
		cc, err := nodes[0].NewClient(n.ID().String())
		if err != nil {
			t.Fatal(err)
		}
		if got := mustGreet(t, cc); got != want {
			t.Errorf("by a channel of one's own: %q, want %q", got, want)
		}
		if err := cc.Close(); err != nil {
			t.Error(err)
		}
	}

	poll.Until(t, 5*time.Second, func() string {
		if got := len(known(nodes[0], "hello.v1.GreeterService")); got != 2 {
			return fmt.Sprintf("%d instances are known, want 2", got)
		}
		return ""
	})
	count := make(map[string]int)
	poll.Until(t, 5*time.Second, func() string { // an instance gets calls once it is connected and has told its health
		if count[mustGreet(t, nodes[0])]++; len(count) < 2 {
			return fmt.Sprintf("the calls went to %v, want two instances", count)
		}
		return ""
	})
	clear(count)
	for range 100 {
		count[mustGreet(t, nodes[0])]++
		count[mustGreet(t, nodes[0].Service("hello.v1.GreeterService"))]++
	}
	if count["1 "+me] != 100 || count["2 "+me] != 100 {
		t.Errorf("the calls went to %v, want an even spread", count)
	}
	// Oneself, in memory.
	if got, want := mustGreet(t, nodes[1].Peer(nodes[1].ID().String())), "1 "+nodes[1].ID().String(); got != want {
		t.Errorf("a call to oneself: %q, want %q", got, want)
	}
}

func TestNode_ANodesOwnServicesNeedANamedPeer(t *testing.T) {
	nodes := p2ptest.Start(t, 2, nil)
	_, err := grpc_health_v1.NewHealthClient(nodes[0]).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("health through the node: %v, want InvalidArgument", err)
	}
	res, err := grpc_health_v1.NewHealthClient(nodes[0].Peer(nodes[1].ID().String())).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || res.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health of a peer: %v, %v", res, err)
	}
}

func TestNode_CallErrorsNameTheirCause(t *testing.T) {
	nodes := p2ptest.Start(t, 2, func(_ int, n *p2p.Node) { n.RegisterService(&benchDesc, nil) }, p2p.WithDiscoveryTimeout(300*time.Millisecond))
	call := func(cc grpc.ClientConnInterface, method string) error {
		return cc.Invoke(t.Context(), method, new(wrapperspb.BytesValue), new(wrapperspb.BytesValue))
	}
	other := nodes[1].ID().String()
	for name, tc := range map[string]struct {
		err  error
		code codes.Code
		text string
	}{
		"a service that nobody has":     {call(nodes[0], "/no.Such/Method"), codes.Unavailable, `"no.Such"`},
		"a method that a peer has not":  {call(nodes[0].Peer(other), "/bench.Bench/Nothing"), codes.Unimplemented, "Nothing"},
		"a service that a peer has not": {call(nodes[0].Peer(other), "/no.Such/Method"), codes.Unimplemented, "no.Such"},
		"a malformed target":            {call(nodes[0].Peer("nobody"), "/bench.Bench/Echo"), codes.InvalidArgument, `"nobody"`},
		"a peer that nobody knows":      {call(nodes[0].Peer("12D3KooWRrNnNfVdUWi9vd6QMoGwhAbv8i7GEB1mjuV1hLLuFs1d"), "/bench.Bench/Echo"), codes.Unavailable, "12D3KooWRrNnNfVdUWi9vd6QMoGwhAbv8i7GEB1mjuV1hLLuFs1d"},
		"another peer than named":       {call(nodes[0].Peer("12D3KooWRrNnNfVdUWi9vd6QMoGwhAbv8i7GEB1mjuV1hLLuFs1d@localhost:"+port(t, nodes[1])), "/bench.Bench/Echo"), codes.Unavailable, other},
	} {
		if status.Code(tc.err) != tc.code || !strings.Contains(tc.err.Error(), tc.text) {
			t.Errorf("%s: %v, want %v with %s", name, tc.err, tc.code, tc.text)
		}
	}
}

func TestNode_TheSenderHeaderProvesNothing(t *testing.T) {
	nodes := p2ptest.Start(t, 2, func(_ int, n *p2p.Node) { pb.RegisterGreeterServiceServer(n, nodetest.Greeter{Who: "x"}) })
	forged := nodes[1].ID().String()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "sender", forged, "p2p-sender", forged, "p2p-peer", forged)
	res, err := pb.NewGreeterServiceClient(nodes[0].Peer(forged)).Greet(ctx, &pb.GreetRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if want := "x " + nodes[0].ID().String(); res.GetText() != want {
		t.Errorf("the handler believes %q, want %q", res.GetText(), want)
	}
}

func TestNode_TheFirstCallWaitsForItsServer(t *testing.T) {
	network := p2ptest.Network()
	seed := p2p.NewNode("localhost:0", p2ptest.Options(network)...)
	start(t, seed)
	client := p2p.NewNode("localhost:0", p2ptest.Options(network)...)
	if err := client.JoinNetwork(seed.Addrs()[0].String()); err != nil {
		t.Fatal(err)
	}
	start(t, client)
	answer := make(chan error, 1)
	go func() {
		_, err := nodetest.Greet(t, client)
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Fatalf("the call did not wait: %v", err)
	case <-time.After(300 * time.Millisecond): // nobody offers it: nothing else than time can tell
	}
	server := p2p.NewNode("localhost:0", p2ptest.Options(network)...)
	pb.RegisterGreeterServiceServer(server, nodetest.Greeter{Who: "late"})
	if err := server.JoinNetwork(seed.Addrs()[0].String()); err != nil {
		t.Fatal(err)
	}
	start(t, server)
	if err := <-answer; err != nil {
		t.Error(err)
	}
}

func start(t *testing.T, n *p2p.Node) {
	t.Helper()
	if err := n.StartServer(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
}

func TestNode_TwoHundredServicesAreAllCallableByName(t *testing.T) {
	nodes := p2ptest.Start(t, 2, func(i int, n *p2p.Node) {
		if i == 0 {
			return
		}
		for k := range 200 {
			desc := benchDesc
			desc.ServiceName = fmt.Sprintf("many.Service%d", k)
			n.RegisterService(&desc, nil)
		}
	})
	for k := range 200 {
		method := fmt.Sprintf("/many.Service%d/Echo", k)
		if err := nodes[0].Invoke(t.Context(), method, wrapperspb.Bytes([]byte("x")), new(wrapperspb.BytesValue)); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
	}
}

func TestNode_RegisterServicePanicsWithTheServicesName(t *testing.T) {
	n := p2ptest.Start(t, 1, func(_ int, n *p2p.Node) { n.RegisterService(&benchDesc, nil) })[0]
	fresh := p2p.NewNode("localhost:0", quiet())
	fresh.RegisterService(&benchDesc, nil)
	for name, register := range map[string]func(){
		"after the start":   func() { pb.RegisterGreeterServiceServer(n, nodetest.Greeter{}) },
		"twice":             func() { fresh.RegisterService(&benchDesc, nil) },
		"of the wrong type": func() { fresh.RegisterService(&pb.GreeterService_ServiceDesc, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				r := fmt.Sprint(recover())
				if !strings.Contains(r, "bench.Bench") && !strings.Contains(r, "hello.v1.GreeterService") {
					t.Errorf("it panicked with %q", r)
				}
			}()
			register()
		})
	}
}

// A target is read once, not at each call.
func TestNode_ATargetCostsACallNothing(t *testing.T) {
	n := p2ptest.Start(t, 1, nil)[0]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	objects := func(cc grpc.ClientConnInterface) float64 {
		least := math.Inf(1)
		for range 3 { // what else the process makes counts, too
			least = min(least, testing.AllocsPerRun(2000, func() { _ = cc.Invoke(ctx, "/bench.Bench/Echo", nil, nil) }))
		}
		return least
	}
	plain, named := objects(n), objects(n.Peer(n.Addrs()[0].String()))
	if named > plain+2 {
		t.Errorf("a call to a target makes %v objects, another %v", named, plain)
	}
}

func TestNode_AfterClose(t *testing.T) {
	n := p2ptest.Start(t, 1, nil)[0]
	id := n.ID()
	waited := make(chan error, 1)
	go func() { waited <- n.Wait() }()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("Wait: %v", err)
	}
	if n.ID() != id {
		t.Errorf("the ID became %q", n.ID())
	}
	_, newErr := n.NewClient(id.String())
	for what, err := range map[string]error{
		"Invoke": n.Invoke(t.Context(), "/a.B/C", nil, nil), "NewClient": newErr, "JoinNetwork": n.JoinNetwork("localhost:1"),
		"StartServer": n.StartServer(), "AwaitPeers": n.AwaitPeers(t.Context(), 1), "Forget": n.Forget(id.String()),
	} {
		if !errors.Is(err, p2p.ErrClosed) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", what, err)
		}
	}
}

func TestNode_RunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := p2p.NewNode("localhost:0", p2ptest.Options(p2ptest.Network())...)
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	poll.Until(t, 10*time.Second, func() string {
		if n.ID() == "" {
			return "the node did not start"
		}
		return ""
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// known returns the instances of a service that a node knows now.
func known(n *p2p.Node, service string, opts ...p2p.CallerOption) (all []p2p.Instance) {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for i, err := range n.Instances(over, service, opts...) {
		if err == nil {
			all = append(all, i)
		}
	}
	return all
}
