package p2p_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/p2ptest"
)

// stranger is a plain libp2p host, connected to a node if the node lets it.
func stranger(t *testing.T, n *p2p.Node) (corehost.Host, error) {
	t.Helper()
	h, err := libp2p.New(libp2p.NoListenAddrs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return h, h.Connect(ctx, peer.AddrInfo{ID: n.ID(), Addrs: n.Host().Addrs()})
}

func TestAccess_AnUnlistedPeerGetsNothingButTheHandshake(t *testing.T) {
	_, friend := nodetest.NewKey(t)
	network := p2ptest.Network()
	n := p2p.NewNode("localhost:0", append(p2ptest.Options(network), p2p.WithAllow(friend))...)
	pb.RegisterGreeterServiceServer(n, nodetest.Greeter{})
	start(t, n)
	h, _ := stranger(t, n) // the dialer's side of a handshake may end before the other refuses
	poll.Until(t, 5*time.Second, func() string {
		if c := h.Network().ConnsToPeer(n.ID()); len(c) > 0 {
			return fmt.Sprintf("still connected: %v", c)
		}
		return ""
	})
	if protos, err := h.Peerstore().GetProtocols(n.ID()); err != nil || len(protos) > 0 {
		t.Errorf("the stranger learnt %v, %v", protos, err)
	}
	if agent, err := h.Peerstore().Get(n.ID(), "AgentVersion"); err == nil {
		t.Errorf("the stranger learnt the agent version %v", agent)
	}
	// The dialer's side may believe for a moment that it is connected, and opens without waiting: what counts is that
	// nothing comes back. A server would greet at once.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if c, err := grpcstream.Dial(ctx, h, n.ID(), grpcstream.TunnelProtocol(network)); err == nil {
		if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Log(err)
		}
		if got, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the stranger opened a tunnel: it read %d bytes, %v", got, err)
		}
		if err := c.Close(); err != nil {
			t.Log(err)
		}
	}
	if got := n.Peers(); len(got) > 0 {
		t.Errorf("the stranger left a record: %v", got)
	}
}

func TestAccess_ARemovedLineEndsTheOpenStream(t *testing.T) {
	key, friend := nodetest.NewKey(t)
	list := filepath.Join(t.TempDir(), "allowed.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# friends\n" + friend.String() + " the friend\n")
	network := p2ptest.Network()
	n := p2p.NewNode("localhost:0", append(p2ptest.Options(network), p2p.WithAllowFile(list))...)
	n.RegisterService(&benchDesc, nil)
	start(t, n)
	client := p2p.NewNode("localhost:0", append(p2ptest.Options(network), p2p.WithIdentity(key))...)
	start(t, client)
	s, err := client.Peer(n.Addrs()[0].String()).NewStream(t.Context(), &benchDesc.Streams[0], "/bench.Bench/Down")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendMsg(wrapperspb.UInt32(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(new(wrapperspb.BytesValue)); err != nil {
		t.Fatal(err)
	}
	write("# nobody\n")
	removed := time.Now()
	for err == nil {
		err = s.RecvMsg(new(wrapperspb.BytesValue))
	}
	if d := time.Since(removed); d > 5*time.Second {
		t.Errorf("the stream went on for %v", d)
	} else {
		t.Logf("the stream ended after %v: %v", d, err)
	}
}

func TestAccess_TheAuthorizerDecidesEachCall(t *testing.T) {
	var admin peer.ID
	nodes := p2ptest.Start(t, 2, func(_ int, n *p2p.Node) { n.RegisterService(&benchDesc, nil) },
		p2p.WithAuthorizer(func(_ context.Context, caller p2p.PeerInfo, method string) error {
			if strings.HasPrefix(method, "/p2p.") || caller.ID == admin && method == "/bench.Bench/Echo" {
				return nil
			}
			return errors.New("not today")
		}))
	call := func(method string) error {
		return nodes[0].Peer(nodes[1].ID().String()).Invoke(t.Context(), method, new(wrapperspb.BytesValue), new(wrapperspb.BytesValue))
	}
	if err := call("/bench.Bench/Echo"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a refused call: %v", err)
	}
	for _, method := range []string{"/bench.Bench/Nothing", "/no.Such/Method", "/grpc.health.v1.Health/Check"} {
		if err := call(method); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s tells a refused caller %v", method, err)
		}
	}
	// A node may always call itself.
	if err := nodes[1].Peer(nodes[1].ID().String()).Invoke(t.Context(), "/bench.Bench/Echo", new(wrapperspb.BytesValue), new(wrapperspb.BytesValue)); err != nil {
		t.Errorf("a call to oneself: %v", err)
	}
}

func TestAccess_AnotherNetworkIsNoNeighborOnWhateverWay(t *testing.T) {
	t.Parallel()
	ours := p2ptest.Start(t, 2, func(_ int, n *p2p.Node) { pb.RegisterGreeterServiceServer(n, nodetest.Greeter{}) })
	theirs := p2p.NewNode("localhost:0", append(p2ptest.Options(p2ptest.Network()), p2p.WithDiscoveryTimeout(time.Second))...)
	pb.RegisterGreeterServiceServer(theirs, nodetest.Greeter{})
	if err := theirs.JoinNetwork(ours[0].Addrs()[0].String(), "localhost:"+port(t, ours[1])); err != nil {
		t.Fatal(err)
	}
	start(t, theirs)
	if err := ours[0].JoinNetwork(theirs.Addrs()[0].String()); err != nil {
		t.Fatal(err)
	}
	if _, err := nodetest.Greet(t, theirs.Peer(ours[0].Addrs()[0].String())); status.Code(err) != codes.Unavailable {
		t.Errorf("a call into another network: %v", err)
	}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, n := range append(ours, theirs) {
			for _, p := range n.Peers() {
				if other := (n == theirs) != (p.ID == theirs.ID()); n != theirs && !other {
					continue
				}
				if n == theirs || p.ID == theirs.ID() {
					if p.State == p2p.StateNeighbor || len(p.Services) > 0 {
						t.Fatalf("a node of another network is %+v", p)
					}
				}
			}
		}
	}
	for _, n := range ours {
		if got := known(n, "hello.v1.GreeterService"); len(got) != 2 {
			t.Errorf("the instances are %v, want those of our network", got)
		}
	}
}

func TestHome_KeepsTheIdentityAndIsUsedByOneNode(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	open := func() *p2p.Node {
		return p2p.NewNode("localhost:0", append(p2ptest.Options(p2ptest.Network()), p2p.WithHome(home))...)
	}
	first := open()
	start(t, first)
	id := first.ID()
	second := open()
	var inUse *host.HomeInUseError
	if err := second.StartServer(); !errors.As(err, &inUse) || !strings.Contains(err.Error(), home) {
		t.Errorf("a second node at the home: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	third := open()
	start(t, third)
	if third.ID() != id {
		t.Errorf("the identity became %v, was %v", third.ID(), id)
	}
}
