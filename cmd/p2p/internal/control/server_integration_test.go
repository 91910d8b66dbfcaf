package control

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/cmd/p2p/internal/testservice"
)

const shapes = "shapes.v1.ShapeService"

func TestServer_Status(t *testing.T) {
	s := newServed(t)
	got, err := s.Status(t.Context(), &StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetId() != s.node.ID().String() || got.GetName() != "first" || got.GetHome() != s.home || got.GetShare() != "here" || got.GetAccess() != "friends" {
		t.Errorf("got %v", got)
	}
	if got.GetNeighbors() != 1 || got.GetConnected() != 1 || got.GetKnown() != 1 || len(got.GetAddrs()) == 0 {
		t.Errorf("got %v", got)
	}
	if diff := cmp.Diff([]string{"all is well"}, got.GetDiagnosis()); diff != "" {
		t.Error(diff)
	}
}

func TestServer_ListPeersWithoutItself(t *testing.T) {
	s := newServed(t)
	for _, neighbors := range []bool{false, true} {
		got, err := s.ListPeers(t.Context(), &ListPeersRequest{NeighborsOnly: neighbors})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.GetPeers()) != 1 {
			t.Fatalf("got %v", got)
		}
		p := got.GetPeers()[0]
		if p.GetId() != s.otherID() || p.GetName() != "twin" || p.GetState() != "neighbor" || p.GetPath() != "direct" || p.GetSince() == nil {
			t.Errorf("got %v", p)
		}
	}
}

func TestServer_GetPeer(t *testing.T) {
	s := newServed(t)
	got, err := s.GetPeer(t.Context(), &GetPeerRequest{Target: s.otherID()})
	if err != nil {
		t.Fatal(err)
	}
	if !got.GetAnswered() || got.GetStartTime() == nil || got.GetPeer().GetId() != s.otherID() {
		t.Errorf("got %v", got)
	}
	// A peer that nobody knows does not answer; that is no failure of the API.
	got, err = s.GetPeer(t.Context(), &GetPeerRequest{Target: alice})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetAnswered() || got.GetError() == "" || got.GetPeer().GetId() != alice {
		t.Errorf("got %v", got)
	}
}

func TestServer_Ping(t *testing.T) {
	s := newServed(t)
	got, err := s.Ping(t.Context(), &PingRequest{Target: s.otherID()})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetId() != s.otherID() || got.GetRtt().AsDuration() <= 0 || got.GetPath() != "direct" {
		t.Errorf("got %v", got)
	}
	if _, err := s.Ping(t.Context(), &PingRequest{Target: alice}); status.Code(err) != codes.Unavailable {
		t.Errorf("a peer that is not there: %v", err)
	}
}

func TestServer_Services(t *testing.T) {
	s := newServed(t)
	list, err := s.ListServices(t.Context(), &ListServicesRequest{Target: s.otherID()})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list.GetServices(), func(svc *Service) bool { return svc.GetName() == shapes })
	if i < 0 {
		t.Fatalf("got %v", list)
	}
	var names []string
	for _, m := range list.GetServices()[i].GetMethods() {
		names = append(names, m.GetName())
	}
	if diff := cmp.Diff([]string{"Both", "Down", "One", "Up"}, names); diff != "" {
		t.Error(diff)
	}
	if m := list.GetServices()[i].GetMethods()[1]; m.GetClientStreaming() || !m.GetServerStreaming() {
		t.Errorf("got %v", m)
	}
	for _, req := range []*FindInstancesRequest{
		{},
		{Service: shapes},
		{Service: shapes, Search: Search_SEARCH_FIRST},
		{Service: shapes, Search: Search_SEARCH_ALL, AskHealth: true},
	} {
		found, err := s.instances(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != 1 {
			t.Fatalf("%v: got %v", req, found)
		}
		i := found[0]
		if i.GetService() != shapes || i.GetPeer().GetId() != s.otherID() || i.GetPeer().GetName() != "twin" || i.GetPath() != "direct" {
			t.Errorf("%v: got %v", req, i)
		}
		if req.GetAskHealth() && i.GetHealth() != "serving" {
			t.Errorf("the health is %q", i.GetHealth())
		}
	}
}

// instances returns all that FindInstances sends.
func (s *served) instances(ctx context.Context, req *FindInstancesRequest) ([]*Instance, error) {
	stream, err := s.FindInstances(ctx, req)
	if err != nil {
		return nil, err
	}
	var out []*Instance
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, res.GetInstance())
	}
}

func TestServer_FindInstancesGivesUpAndSaysWhatToDo(t *testing.T) {
	s := newServed(t)
	for _, search := range []Search{Search_SEARCH_FIRST, Search_SEARCH_ALL} {
		_, err := s.instances(t.Context(), &FindInstancesRequest{Service: "no.Such", Search: search})
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no other node offers no.Such") || !strings.Contains(err.Error(), "p2p services ls") {
			t.Errorf("%s: %v", search, err)
		}
	}
	// Without a search nobody is no error.
	for _, service := range []string{"", "no.Such"} {
		if found, err := s.instances(t.Context(), &FindInstancesRequest{Service: service, Tags: []string{"a=b"}}); err != nil || len(found) > 0 {
			t.Errorf("%q: got %v, %v", service, found, err)
		}
	}
	_, err := s.instances(t.Context(), &FindInstancesRequest{Service: shapes, Search: Search_SEARCH_FIRST, Tags: []string{"a=b", "c=d"}})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "with the tags a=b, c=d") {
		t.Errorf("with tags: %v", err)
	}
	if _, err := s.instances(t.Context(), &FindInstancesRequest{Tags: []string{"nonsense"}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a bad tag: %v", err)
	}
}

// TestServer_PinnedNameIsTheOnlyOne has two peers that call themselves the same: a call goes to neither, until the name
// is pinned, and then to that one alone.
func TestServer_PinnedNameIsTheOnlyOne(t *testing.T) {
	s := newServed(t)
	client := testservice.NewShapeServiceClient(s.conn)
	one := func(target string) error {
		_, err := client.One(WithTarget(t.Context(), target), &testservice.OneRequest{Text: "x"})
		return err
	}
	if err := one("twin"); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "p2p peers pin "+s.otherID()+" twin") {
		t.Errorf("a claimed name: %v", err)
	}
	res, err := s.PinName(t.Context(), &PinNameRequest{Target: s.otherID(), Name: "twin"})
	if err != nil || res.GetId() != s.otherID() {
		t.Fatalf("got %v, %v", res, err)
	}
	if err := one("twin"); err != nil {
		t.Errorf("a pinned name: %v", err)
	}
	// Again is fine, for somebody else only when that is said.
	if _, err := s.PinName(t.Context(), &PinNameRequest{Target: s.otherID(), Name: "twin"}); err != nil {
		t.Error(err)
	}
	_, err = s.PinName(t.Context(), &PinNameRequest{Target: alice, Name: "twin"})
	if status.Code(err) != codes.AlreadyExists || !strings.Contains(err.Error(), s.otherID()) || !strings.Contains(err.Error(), "--replace") {
		t.Errorf("got %v", err)
	}
	if _, err := s.PinName(t.Context(), &PinNameRequest{Target: alice, Name: "twin", Replace: true}); err != nil {
		t.Error(err)
	}
	// The other one still calls itself so, and gets nothing.
	if err := one("twin"); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{"", alice, "a@b", "/x"} {
		if _, err := s.PinName(t.Context(), &PinNameRequest{Target: alice, Name: bad}); err == nil {
			t.Errorf("the name %q was pinned", bad)
		}
	}
}

func TestServer_ConnectDisconnectForget(t *testing.T) {
	s := newServed(t)
	before := s.node.Host().Network().ConnsToPeer(s.other.ID())
	if res, err := s.Disconnect(t.Context(), &DisconnectRequest{Target: s.otherID()}); err != nil || res.GetId() != s.otherID() {
		t.Fatalf("got %v, %v", res, err)
	}
	for _, c := range before { // the other may make a new one
		if !c.IsClosed() {
			t.Errorf("%v is left", c)
		}
	}
	res, err := s.Connect(t.Context(), &ConnectRequest{Target: s.other.Addrs()[0].String()})
	if err != nil || res.GetPeer().GetId() != s.otherID() || res.GetRtt().AsDuration() <= 0 {
		t.Fatalf("got %v, %v", res, err)
	}
	if _, err := s.PinName(t.Context(), &PinNameRequest{Target: s.otherID(), Name: "friend"}); err != nil {
		t.Fatal(err)
	}
	if res, err := s.Forget(t.Context(), &ForgetRequest{Target: "friend"}); err != nil || res.GetId() != s.otherID() {
		t.Fatalf("got %v, %v", res, err)
	}
	if _, err := s.Ping(t.Context(), &PingRequest{Target: "friend"}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a name that was forgotten: %v", err)
	}
}

func TestServer_ConnectToAPlace(t *testing.T) {
	s := newServed(t)
	place := func(n *p2p.Node) string {
		port, err := n.Addrs()[0].ValueForProtocol(6) // TCP
		if err != nil {
			t.Fatal(err)
		}
		return net.JoinHostPort("127.0.0.1", port)
	}
	if res, err := s.Connect(t.Context(), &ConnectRequest{Target: place(s.other)}); err != nil || res.GetPeer().GetId() != s.otherID() {
		t.Errorf("got %v, %v", res, err)
	}
	if _, err := s.Connect(t.Context(), &ConnectRequest{Target: place(s.node)}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("itself: %v", err)
	}
	// A wrong ID is named, and never trusted.
	_, err := s.Connect(t.Context(), &ConnectRequest{Target: alice + "@" + place(s.other)})
	if err == nil || !strings.Contains(err.Error(), s.otherID()) {
		t.Errorf("a wrong ID: %v", err)
	}
	for _, bad := range []string{"", ":0", "nobody", "x@127.0.0.1:1", "/ip4/127.0.0.1/tcp/1"} {
		if _, err := s.Connect(t.Context(), &ConnectRequest{Target: bad}); err == nil {
			t.Errorf("connected to %q", bad)
		}
	}
}

func TestServer_WatchPeers(t *testing.T) {
	s := newServed(t)
	stream, err := s.WatchPeers(t.Context(), &WatchPeersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.GetPeer().GetId() != s.otherID() || first.GetKind() != "" {
		t.Fatalf("got %v, %v", first, err)
	}
	if end, err := stream.Recv(); err != nil || end.GetPeer() != nil {
		t.Fatalf("got %v, %v", end, err)
	}
	if _, err := s.Disconnect(t.Context(), &DisconnectRequest{Target: s.otherID()}); err != nil {
		t.Fatal(err)
	}
	untilLeft(t, stream)
}

// untilLeft reads a watch until a peer has left. Before that comes nothing but the kind given, if one is.
func untilLeft(t *testing.T, stream grpc.ServerStreamingClient[WatchPeersResponse], only ...p2p.PeerEventKind) {
	t.Helper()
	for {
		e, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		kind := p2p.PeerEventKind(e.GetKind())
		if kind == p2p.PeerLeft {
			return
		}
		if len(only) > 0 && !slices.Contains(only, kind) {
			t.Fatalf("got %v", e)
		}
	}
}

func TestServer_WatchNeighborsOnly(t *testing.T) {
	s := newServed(t)
	stream, err := s.WatchPeers(t.Context(), &WatchPeersRequest{NeighborsOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Disconnect(t.Context(), &DisconnectRequest{Target: s.otherID()}); err != nil {
		t.Fatal(err)
	}
	untilLeft(t, stream, p2p.PeerJoined) // which it may have become while the list was made
}

func TestServer_ShutdownEndsAWatchAtOnce(t *testing.T) {
	s := newServed(t)
	stream, err := s.WatchPeers(t.Context(), &WatchPeersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	s.server.Shutdown(ctx)
	if ctx.Err() != nil {
		t.Error("the shutdown waited for the watch")
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("the watch ended with %v", err)
	}
	if _, err := os.Stat(SocketPath(s.home)); err == nil {
		t.Error("the socket is still there")
	}
	if _, err := Dial(t.Context(), s.home); !errors.Is(err, ErrNoNode) {
		t.Errorf("got %v", err)
	}
}

func TestServer_ShutdownCutsACallThatDoesNotEnd(t *testing.T) {
	s := newServed(t)
	stream, err := testservice.NewShapeServiceClient(s.conn).Both(WithTarget(t.Context(), s.otherID()))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&testservice.BothRequest{Text: "a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	s.server.Shutdown(ctx)
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestServer_ForwardsSystemServices(t *testing.T) {
	s := newServed(t)
	for _, id := range []string{s.otherID(), s.node.ID().String()} {
		res, err := healthpb.NewHealthClient(s.conn).Check(WithTarget(t.Context(), id), &healthpb.HealthCheckRequest{})
		if err != nil || res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("got %v, %v", res, err)
		}
	}
	// Without a target it is a method that this node's API does not have.
	_, err := healthpb.NewHealthClient(s.conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v", err)
	}
}

func TestServer_BadTargets(t *testing.T) {
	s := newServed(t)
	for _, call := range map[string]func(target string) error{
		"get":        func(x string) error { _, err := s.GetPeer(t.Context(), &GetPeerRequest{Target: x}); return err },
		"ping":       func(x string) error { _, err := s.Ping(t.Context(), &PingRequest{Target: x}); return err },
		"connect":    func(x string) error { _, err := s.Connect(t.Context(), &ConnectRequest{Target: x}); return err },
		"disconnect": func(x string) error { _, err := s.Disconnect(t.Context(), &DisconnectRequest{Target: x}); return err },
		"forget":     func(x string) error { _, err := s.Forget(t.Context(), &ForgetRequest{Target: x}); return err },
		"pin": func(x string) error {
			_, err := s.PinName(t.Context(), &PinNameRequest{Target: x, Name: "n"})
			return err
		},
		"services": func(x string) error {
			_, err := s.ListServices(t.Context(), &ListServicesRequest{Target: x})
			return err
		},
	} {
		if err := call("nonsense@x"); status.Code(err) != codes.InvalidArgument {
			t.Errorf("got %v", err)
		}
		if err := call("nobody"); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("got %v", err)
		}
	}
}
