package pathinfo

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"
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

// eye is a Looker that sees the same always, and notes what it was asked.
type eye struct {
	view  View
	asked []bool
}

func (e *eye) Look(_ context.Context, _ peer.ID, dial bool) View {
	e.asked = append(e.asked, dial)
	return e.view
}

func anybody(context.Context) (peer.ID, bool) { return "anna", true }

func serving(t *testing.T, e *eye, asker func(context.Context) (peer.ID, bool)) *grpc.ClientConn {
	t.Helper()
	cc, stop := dial(t, func(s *grpc.Server) { Register(s, e, asker) })
	t.Cleanup(stop)
	return cc
}

func TestLook_TellsWhatTheOtherEndSees(t *testing.T) {
	want := View{
		Path: "relay", Relay: "12D3KooW", Transport: "tcp", SeenAt: "/ip4/192.0.2.1/tcp/1", NotDirect: "no answer",
		Reachability: "private", UDPMapping: "symmetric NAT", TCPMapping: "NAT",
		Dialed: []Met{{Addr: "/ip4/192.0.2.1/tcp/1", Took: time.Second, Err: "no answer"}, {Addr: "/ip4/192.0.2.2/tcp/1"}},
	}
	e := &eye{view: want}
	got, ahead, err := Look(t.Context(), serving(t, e, anybody), true)
	if err != nil {
		t.Fatal(err)
	}
	if got.Time.IsZero() || ahead.Abs() > 5*time.Second {
		t.Errorf("its clock says %v, %v ahead of the same clock", got.Time, ahead)
	}
	got.Time = time.Time{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(e.asked) != 1 || !e.asked[0] {
		t.Errorf("it was asked %v, want once, to dial", e.asked)
	}
}

func TestLook_CutsWhatIsTooLong(t *testing.T) {
	e := &eye{view: View{NotDirect: strings.Repeat("ü", MaxText), SeenAt: "\xff/ip4", Dialed: make([]Met, 2*MaxDialed)}}
	got, _, err := Look(t.Context(), serving(t, e, anybody), false)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.NotDirect) != MaxText || !utf8.ValidString(got.NotDirect) || got.SeenAt != "/ip4" || len(got.Dialed) != MaxDialed {
		t.Errorf("%d bytes, %q, %d addresses", len(got.NotDirect), got.SeenAt, len(got.Dialed))
	}
}

func TestLook_RefusesWhoIsNotKnown(t *testing.T) {
	cc := serving(t, &eye{}, func(context.Context) (peer.ID, bool) { return "", false })
	if _, _, err := Look(t.Context(), cc, false); status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v, want Unauthenticated", err)
	}
}

func TestLook_DialsNotTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		who := peer.ID("anna")
		s := &server{looker: &eye{}, asker: func(context.Context) (peer.ID, bool) { return who, true }, last: make(map[peer.ID]time.Time)}
		look := func(dial bool) codes.Code {
			_, err := s.Look(t.Context(), &LookRequest{Dial: dial})
			return status.Code(err)
		}
		if got := look(true); got != codes.OK {
			t.Errorf("the first question: %v", got)
		}
		if got := look(true); got != codes.ResourceExhausted {
			t.Errorf("the next one at once: %v, want ResourceExhausted", got)
		}
		if got := look(false); got != codes.OK {
			t.Errorf("a question without dials: %v", got)
		}
		time.Sleep(dialPause)
		if got := look(true); got != codes.OK {
			t.Errorf("after the pause: %v", got)
		}
		for i := range 10 * maxDialers { // a crowd of identities
			who = peer.ID(string(rune('一' + i)))
			_ = look(true)
		}
		if len(s.last) > maxDialers {
			t.Errorf("%d callers are remembered, want at most %d", len(s.last), maxDialers)
		}
	})
}

// liar is a server whose clock is wrong.
type liar struct {
	UnimplementedPathInfoServiceServer
	ahead time.Duration
}

func (l liar) Look(context.Context, *LookRequest) (*LookResponse, error) {
	return &LookResponse{Time: timestamppb.New(time.Now().Add(l.ahead))}, nil
}

func TestLook_TellsByHowMuchClocksDiffer(t *testing.T) {
	for _, want := range []time.Duration{time.Hour, -90 * time.Second} {
		cc, stop := dial(t, func(s *grpc.Server) { RegisterPathInfoServiceServer(s, liar{ahead: want}) })
		_, got, err := Look(t.Context(), cc, false)
		stop()
		if err != nil || (got-want).Abs() > 5*time.Second {
			t.Errorf("a clock that is %v ahead: %v, %v", want, got, err)
		}
	}
}
