package hosttest_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/virtual"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inBubble runs f with a network in virtual time.
func inBubble(t *testing.T, f func(t *testing.T, n *hosttest.Network)) {
	t.Helper()
	virtual.Test(t, func(t *testing.T) {
		n := hosttest.New(t)
		defer n.Close()
		f(t, n)
	})
}

func info(h corehost.Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: host.Addrs(h)} }

// roundTrip measures a byte to b and back on a new stream, after a first one that pays for the negotiation.
func roundTrip(ctx context.Context, t *testing.T, a, b corehost.Host) (time.Duration, error) {
	t.Helper()
	b.SetStreamHandler("/echo", func(s network.Stream) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
	s, err := a.NewStream(ctx, b.ID(), "/echo")
	if err != nil {
		return 0, err
	}
	defer func() { _ = s.Reset() }()
	if d, ok := ctx.Deadline(); ok {
		_ = s.SetDeadline(d)
	}
	var took time.Duration
	for range 2 {
		start := time.Now()
		if _, err := s.Write([]byte{1}); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			return 0, err
		}
		took = time.Since(start)
	}
	return took, nil
}

func TestNetwork_Latency(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		a, b := n.Host(), n.Host()
		for _, want := range []time.Duration{0, 10 * time.Millisecond, 200 * time.Millisecond} {
			n.SetLatency(a, b, want)
			if err := a.Connect(t.Context(), info(b)); err != nil {
				t.Fatal(err)
			}
			got, err := roundTrip(t.Context(), t, a, b)
			if err != nil {
				t.Fatal(err)
			}
			if got < 2*want || got > 2*want+30*time.Millisecond {
				t.Errorf("round trip %v at a latency of %v", got, want)
			}
		}
	})
}

func TestNetwork_CutAndHeal(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		a, b, c := n.Host(), n.Host(), n.Host()
		for _, h := range []corehost.Host{b, c} {
			if err := a.Connect(t.Context(), info(h)); err != nil {
				t.Fatal(err)
			}
		}
		n.Cut(a, b)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := roundTrip(ctx, t, a, b); err == nil {
			t.Error("a reached b over the cut")
		}
		if _, err := roundTrip(t.Context(), t, a, c); err != nil {
			t.Errorf("a does not reach c: %v", err)
		}
		n.Heal(a, b)
		if _, err := roundTrip(t.Context(), t, a, b); err != nil {
			t.Errorf("after healing: %v", err)
		}
	})
}

func TestNetwork_CutConnectionDies(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		a, b := n.Host(), n.Host()
		if err := a.Connect(t.Context(), info(b)); err != nil {
			t.Fatal(err)
		}
		n.Cut(a, b)
		time.Sleep(time.Minute) // virtual
		synctest.Wait()
		if got := a.Network().Connectedness(b.ID()); got != network.NotConnected {
			t.Errorf("a is %v after a minute without a packet", got)
		}
		n.Heal(a, b)
		if err := a.Connect(t.Context(), info(b)); err != nil {
			t.Error(err)
		}
	})
}

func TestNetwork_Partition(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		a, b, c, d := n.Host(), n.Host(), n.Host(), n.Host()
		n.Partition([]corehost.Host{a, b}, []corehost.Host{c})
		reaches := func(x, y corehost.Host) bool {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			return x.Connect(ctx, info(y)) == nil
		}
		for _, tc := range []struct {
			name string
			x, y corehost.Host
			want bool
		}{{"same side", a, b, true}, {"other side", a, c, false}, {"no side", d, c, true}, {"to no side", a, d, true}} {
			if got := reaches(tc.x, tc.y); got != tc.want {
				t.Errorf("%s: reached %v", tc.name, got)
			}
		}
		n.HealAll()
		time.Sleep(10 * time.Second) // libp2p's backoff, virtual
		if !reaches(a, c) {
			t.Error("a does not reach c after healing")
		}
	})
}

func TestNetwork_IdentifyAndAllowList(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		a := n.Host()
		b := n.HostWith(host.Config{UserAgent: "test/2"})
		id, err := host.Identify(t.Context(), a, host.Addrs(b)[0])
		if err != nil || id != b.ID() {
			t.Errorf("Identify: %s, %v", id, err)
		}
		if err := a.Connect(t.Context(), info(b)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if v, _ := a.Peerstore().Get(b.ID(), "AgentVersion"); v != "test/2" {
			t.Errorf("agent version %v", v)
		}
	})
}

func TestNetwork_LatencyOfAllLinks(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		a, b, c := n.Host(), n.Host(), n.Host()
		for _, h := range []corehost.Host{b, c} {
			if err := a.Connect(t.Context(), info(h)); err != nil {
				t.Fatal(err)
			}
		}
		n.SetLatency(a, b, time.Second)
		n.SetLatencyAll(50 * time.Millisecond)
		n.SetLatency(a, c, 200*time.Millisecond)
		for h, want := range map[corehost.Host]time.Duration{b: 100 * time.Millisecond, c: 400 * time.Millisecond} {
			got, err := roundTrip(t.Context(), t, a, h)
			if err != nil {
				t.Fatal(err)
			}
			if got < want || got > want+30*time.Millisecond {
				t.Errorf("round trip %v, want %v", got, want)
			}
		}
	})
}

func TestNetwork_LossOfAllLinks(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		a, b := n.Host(), n.Host()
		if err := a.Connect(t.Context(), info(b)); err != nil {
			t.Fatal(err)
		}
		n.SetLossAll(0.2)
		begin := time.Now()
		for range 100 {
			if _, err := roundTrip(t.Context(), t, a, b); err != nil {
				t.Fatal(err)
			}
		}
		if time.Since(begin) == 0 {
			t.Error("a hundred exchanges and no packet was sent twice")
		}
		n.SetLossAll(1)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := roundTrip(ctx, t, a, b); err == nil {
			t.Error("all is lost, and something arrived")
		}
	})
}

func TestNetwork_UnpluggedIsNotHealed(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		a, b, c := n.Host(), n.Host(), n.Host()
		n.Unplug(b)
		n.HealAll()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := a.Connect(ctx, info(b)); err == nil {
			t.Error("a reached b")
		}
		if err := a.Connect(t.Context(), info(c)); err != nil {
			t.Error(err)
		}
	})
}

func TestNetwork_Replace(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		lan, open := n.Host(), n.Router(hosttest.Open).Host()
		home := n.Router(hosttest.FullCone)
		inside, beside := home.Host(), home.Host()
		for _, h := range []corehost.Host{lan, open, inside} {
			asker := beside
			if h == lan {
				asker = n.Host()
			}
			n.SetLatency(asker, h, 50*time.Millisecond)
			if err := asker.Connect(t.Context(), info(h)); err != nil {
				t.Fatal(err)
			}
			n.Unplug(h)
			again := n.Replace(h, host.Config{})
			if got, want := again.Addrs(), h.Addrs(); len(got) != 1 || !got[0].Equal(want[0]) {
				t.Errorf("at %v instead of %v", got, want)
			}
			if err := asker.Connect(t.Context(), info(again)); err != nil {
				t.Fatal(err)
			}
			if took, err := roundTrip(t.Context(), t, asker, again); err != nil || took < 100*time.Millisecond {
				t.Errorf("a round trip over the old link took %v: %v", took, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if _, err := roundTrip(ctx, t, asker, h); err == nil {
				t.Error("the one that was replaced still answers")
			}
			cancel()
		}
	})
}

func TestNetwork_ManyHosts(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		first := n.Host()
		for range 49 {
			if err := n.Host().Connect(t.Context(), info(first)); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(first.Network().Peers()); got != 49 {
			t.Errorf("%d peers", got)
		}
	})
}

func TestNetwork_InRealTime(t *testing.T) {
	n := hosttest.New(t)
	a, b := n.Host(), n.Host()
	if err := a.Connect(t.Context(), info(b)); err != nil {
		t.Fatal(err)
	}
	if _, err := roundTrip(t.Context(), t, a, b); err != nil {
		t.Error(err)
	}
}

func TestNetwork_HostIsClosedEarly(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		a, b := n.Host(), n.Host()
		if err := a.Connect(t.Context(), info(b)); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := a.Network().Connectedness(b.ID()); got != network.NotConnected {
			t.Errorf("a is still %v", got)
		}
	})
}
