package grpcstream

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/host"
)

// Calls begin over the relay, and move to the direct path when there is one: none fails, and the stream ends after the
// grace period with a reason.
func TestMove_UnderLoad(t *testing.T) {
	acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
		ch := w.channel(ChannelConfig{})
		l := newTraffic(t, ch.Peer(w.b.ID().String()))
		passed(5 * time.Second)
		if l.path() != PathRelay {
			t.Fatalf("calls take path %q", l.path())
		}
		w.connect()
		passed(time.Second)
		if l.path() != PathDirect {
			t.Errorf("calls take path %q", l.path())
		}
		passed(defaultMoveGrace - 2*time.Second)
		if err := l.streamEnd(); err != nil {
			t.Errorf("the stream ended within the grace period: %v", err)
		}
		if n := tunnels(conns(w.a, w.b, true)[0]); n != 1 {
			t.Errorf("%d tunnels over the relay", n)
		}
		passed(2 * time.Second)
		wantReason(t, l.streamEnd(), ReasonPathMoved)
		l.close(100 * time.Millisecond)
		if !slices.Equal(l.paths, []PathKind{PathRelay, PathDirect}) {
			t.Errorf("calls took paths %v", l.paths)
		}
		for _, c := range append(conns(w.a, w.b, true), conns(w.b, w.a, true)...) {
			if n := tunnels(c); n > 0 {
				t.Errorf("%d tunnels are left on the relayed connection", n)
			}
		}
	})
}

// An idle tunnel moves at once, so that the relay gets its slot back.
func TestMove_Idle(t *testing.T) {
	acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
		ch := w.channel(ChannelConfig{})
		if _, err := askWho(t.Context(), ch.Peer(w.b.ID().String()), "x.A"); err != nil {
			t.Fatal(err)
		}
		w.connect()
		passed(time.Second)
		for _, c := range append(conns(w.a, w.b, true), conns(w.b, w.a, true)...) {
			if n := tunnels(c); n > 0 {
				t.Errorf("%d tunnels are left on the relayed connection", n)
			}
		}
		if i := ch.Instances("x.A"); len(i) != 1 || i[0].Path != PathDirect {
			t.Errorf("instances %+v", i)
		}
	})
}

// A unary call that takes longer than the grace period ends where it is.
func TestMove_SlowUnaryCall(t *testing.T) {
	acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
		ch := w.channel(ChannelConfig{})
		peer := ch.Peer(w.b.ID().String())
		done := make(chan error, 1)
		go func() { done <- peer.Invoke(t.Context(), "/x.A/Nap", nothing(), nothing()) }()
		stream := openChat(t, peer)
		passed(time.Second)
		w.connect()
		if err := <-done; err != nil {
			t.Error(err)
		}
		passed(2 * moveBusyLook)
		wantReason(t, stream.RecvMsg(nothing()), ReasonPathMoved)
	})
}

func openChat(t *testing.T, cc grpc.ClientConnInterface) grpc.ClientStream {
	t.Helper()
	s, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/x.A/Chat")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SendMsg(wrapperspb.String("x")), s.RecvMsg(nothing())); err != nil {
		t.Fatal(err)
	}
	return s
}

// Direct connections that come and go fail no call that was not on one.
func TestMove_DirectConnectionIsGoneAtOnce(t *testing.T) {
	acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
		ch := w.channel(ChannelConfig{})
		l := newTraffic(t, ch.Peer(w.b.ID().String()))
		passed(time.Second)
		for _, lasts := range []time.Duration{0, time.Millisecond, 2 * hop, 4 * hop, 6 * hop, moveSettle / 2, moveSettle - time.Millisecond} {
			c := w.connect()
			passed(lasts)
			_ = c.Close()
			passed(time.Second)
		}
		if err := l.streamEnd(); err != nil {
			t.Errorf("the stream ended: %v", err)
		}
		l.close(100 * time.Millisecond)
		if !slices.Equal(l.paths, []PathKind{PathRelay}) {
			t.Errorf("calls took paths %v", l.paths)
		}
	})
}

// Calls that may be repeated survive a path that flaps for as long as it likes.
func TestMove_Flapping(t *testing.T) {
	acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
		ch := w.channel(ChannelConfig{})
		l := newTraffic(t, ch.Peer(w.b.ID().String()), Repeatable())
		for i := range 20 {
			passed(700 * time.Millisecond)
			c := w.connect()
			passed(time.Duration(100+137*i) * time.Millisecond)
			_ = c.Close()
		}
		passed(time.Second)
		if l.path() != PathRelay {
			t.Errorf("calls take path %q", l.path())
		}
		w.connect()
		passed(2 * moveSettleMax)
		if l.path() != PathDirect {
			t.Errorf("calls take path %q", l.path())
		}
		l.close(300 * time.Millisecond)
	})
}

// The relayed connection is lost while calls are about to move.
func TestMove_RelayIsGoneMeanwhile(t *testing.T) {
	for name, after := range map[string]time.Duration{
		"while the tunnel is made":       hop,
		"while the direct path settles":  4 * hop,
		"when the calls have just moved": moveSettle + 5*hop,
	} {
		t.Run(name, func(t *testing.T) {
			acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
				ch := w.channel(ChannelConfig{})
				l := newTraffic(t, ch.Peer(w.b.ID().String()), Repeatable())
				passed(time.Second)
				w.connect()
				passed(after)
				for _, c := range conns(w.a, w.b, true) {
					_ = c.Close()
				}
				passed(time.Second)
				l.close(200 * time.Millisecond)
				wantReason(t, l.streamEnd(), ReasonNoRoute)
				if l.path() != PathDirect {
					t.Errorf("calls take path %q", l.path())
				}
			})
		})
	}
}

// The direct connection is lost: calls go back over the relay.
func TestMove_BackOverTheRelay(t *testing.T) {
	for name, keep := range map[string]bool{"which is still connected": true, "which is dialed anew": false} {
		t.Run(name, func(t *testing.T) {
			acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
				ch := w.channel(ChannelConfig{})
				l := newTraffic(t, ch.Peer(w.b.ID().String()), Repeatable())
				passed(time.Second)
				c := w.connect()
				passed(defaultMoveGrace + 2*time.Second)
				if !keep {
					for _, r := range conns(w.a, w.b, true) {
						_ = r.Close()
					}
				}
				w.net.Cut(w.a, w.b)
				passed(3 * time.Second) // until whoever pings it sees that it is dead
				_ = c.Close()
				passed(10 * time.Second)
				l.close(5 * time.Second)
				if want := []PathKind{PathRelay, PathDirect, PathRelay}; !slices.Equal(l.paths, want) {
					t.Errorf("calls took paths %v", l.paths)
				}
			})
		})
	}
}

// Whoever judges whether a connection is alive can ask when something came over it.
func TestHeard(t *testing.T) {
	acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
		ch := w.channel(ChannelConfig{})
		stream := openChat(t, ch.Peer(w.b.ID().String()))
		here, there := conns(w.a, w.b, true)[0], conns(w.b, w.a, true)[0]
		other := w.connect()
		for range 3 {
			passed(time.Second)
			if err := errors.Join(stream.SendMsg(wrapperspb.String("x")), stream.RecvMsg(nothing())); err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			if got := now.Sub(ch.Heard(here)); got != 0 {
				t.Errorf("the channel heard something %v ago", got)
			}
			if got := now.Sub(w.serve.Heard(there)); got <= 0 || got > 3*hop {
				t.Errorf("the server heard something %v ago", got)
			}
		}
		_ = other.Close()
		passed(time.Second)
		if at := ch.Heard(other); !at.IsZero() {
			t.Errorf("heard something at %v over a connection without a tunnel", at)
		}
	})
}

// A channel of the caller's own moves as well.
func TestMove_Client(t *testing.T) {
	acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
		ch := w.channel(ChannelConfig{})
		cc, err := ch.NewClient(w.b.ID().String())
		if err != nil {
			t.Fatal(err)
		}
		w.end = append(w.end, func() { _ = cc.Close() })
		l := newTraffic(t, cc)
		passed(2 * time.Second)
		w.connect()
		passed(clientSettle + time.Second)
		if l.path() != PathDirect {
			t.Errorf("calls take path %q", l.path())
		}
		passed(defaultMoveGrace)
		if got := l.streamEnd(); !strings.Contains(fmt.Sprint(got), "was given up for a direct one") {
			t.Errorf("the stream ended with %v", got)
		}
		l.close(200 * time.Millisecond)
		for _, c := range conns(w.a, w.b, true) {
			if n := tunnels(c); n > 0 {
				t.Errorf("%d tunnels are left on the relayed connection", n)
			}
		}
	})
}

// Without anybody who pings the connections, gRPC's ping finds that the direct path is dead, and the next tunnel does not
// begin on the same connection.
func TestMove_SilentPathIsAbandoned(t *testing.T) {
	acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
		ch := w.channel(ChannelConfig{})
		peer := ch.Peer(w.b.ID().String())
		if _, err := askWho(t.Context(), peer, "x.A"); err != nil {
			t.Fatal(err)
		}
		direct := w.connect()
		passed(defaultMoveGrace + time.Second)
		for _, r := range conns(w.a, w.b, true) {
			_ = r.Close()
		}
		w.net.Cut(w.a, w.b)
		began := time.Now()
		if _, err := askWho(t.Context(), peer, "x.A", Repeatable()); err != nil {
			t.Error(err)
		}
		took := time.Since(began)
		t.Logf("the call took %v", took)
		if took > clientKeepaliveTime+clientKeepaliveTimeout+2*time.Second {
			t.Errorf("the call took %v", took)
		}
		if !direct.IsClosed() {
			t.Error("the dead connection is kept")
		}
	})
}
