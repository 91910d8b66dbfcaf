package discovery

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/addr"
)

// reached waits until a reaches b through the relay or directly, and returns how long that took.
func (w *wide) reached(limit time.Duration, a, b *site, relayed bool) time.Duration {
	w.t.Helper()
	return w.within(limit, func() string {
		p, ok := a.neighbor(b)
		if !ok || relayed != (p.Path.Relay != "") {
			return fmt.Sprintf("b is %+v", p)
		}
		return ""
	})
}

// direct connects a to b, which is at a public address and has a relay all the same.
func (w *wide) direct(a, b *site) {
	w.t.Helper()
	w.meet(3*time.Second, a, w.relay)
	w.meet(3*time.Second, b, w.relay)
	a.k.Found(peer.AddrInfo{ID: b.h.ID(), Addrs: publicAddrs(b.h)}, Origin{Source: "join", Explicit: true})
	w.reached(3*time.Second, a, b, false)
	w.within(3*time.Second, func() string {
		if p, _ := a.neighbor(b); len(p.Addrs) < 2 {
			return fmt.Sprintf("a does not know b's relay: %+v", p)
		}
		return ""
	})
	time.Sleep(steady)
}

func TestKeeper_ADirectPathThatIsCutIsReplacedThroughTheRelay(t *testing.T) {
	inWide(t, func(t *testing.T, w *wide) {
		a := w.behind(hosttest.PortRestricted, host.Config{}, KeeperConfig{Low: 1})
		b := w.behind(hosttest.Open, host.Config{}, KeeperConfig{Low: 1})
		a.used, b.used = true, true
		w.direct(a, b)
		w.net.Cut(a.h, b.h)
		t.Logf("back over the relay after %v", w.reached(4500*time.Millisecond, a, b, true))
	})
}

func TestKeeper_APeerThatCrashedIsReachedAtItsNewPlace(t *testing.T) {
	inWide(t, func(t *testing.T, w *wide) {
		a := w.behind(hosttest.PortRestricted, host.Config{}, KeeperConfig{Low: 1})
		key := testKey(t)
		home := w.net.Router(hosttest.Open)
		b := w.site(home, host.Config{Identity: key}, KeeperConfig{Low: 1})
		w.reserve(b)
		a.used, b.used = true, true
		w.direct(a, b)
		b.cancel()
		w.net.Unplug(b.h)
		time.Sleep(time.Second)
		b = w.site(home, host.Config{Identity: key}, KeeperConfig{Low: 1})
		w.reserve(b)
		before := a.h.Network().ConnsToPeer(b.h.ID())
		t.Logf("reached after %v", w.within(5*time.Second, func() string {
			for _, c := range a.h.Network().ConnsToPeer(b.h.ID()) {
				old := false
				for _, o := range before {
					old = old || o == c
				}
				if !old && len(b.h.Network().ConnsToPeer(a.h.ID())) > 0 {
					return ""
				}
			}
			return "a has no new connection to b"
		}))
		w.meet(5*time.Second, a, b)
	})
}

func TestKeeper_ARenumberedRouterIsGotOver(t *testing.T) {
	inWide(t, func(t *testing.T, w *wide) {
		site := w.net.Router(hosttest.PortRestricted)
		a := w.site(site, host.Config{}, KeeperConfig{Low: 1})
		w.reserve(a)
		b := w.behind(hosttest.Open, host.Config{}, KeeperConfig{Low: 1})
		a.used, b.used = true, true
		w.direct(a, b)
		site.Renumber()
		t.Logf("reached after %v", w.within(5*time.Second, func() string {
			for _, c := range append(a.h.Network().ConnsToPeer(b.h.ID()), b.h.Network().ConnsToPeer(a.h.ID())...) {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				_, err := host.Ping(ctx, c)
				if cancel(); err != nil {
					return err.Error()
				}
			}
			return ""
		}))
		w.meet(5*time.Second, a, b)
		w.meet(5*time.Second, a, w.relay)
	})
}

// A relay may be asked alone for a lost peer: afterwards calls may try where the peer was.
func TestKeeper_NoAddressIsForgottenWhileTheRelayIsAsked(t *testing.T) {
	inWide(t, func(t *testing.T, w *wide) {
		a := w.behind(hosttest.PortRestricted, host.Config{}, KeeperConfig{Low: 1})
		b := w.behind(hosttest.Open, host.Config{}, KeeperConfig{Low: 1})
		w.direct(a, b)
		w.net.Unplug(b.h)
		for _, c := range a.h.Network().ConnsToPeer(b.h.ID()) {
			_ = c.Close()
		}
		rest := 0
		for range 500 {
			time.Sleep(90 * time.Millisecond)
			synctest.Wait()
			if p, _ := a.k.Peer(b.h.ID()); p.State != Known { // the dial says where to
				continue
			}
			rest++
			if !slices.ContainsFunc(a.h.Peerstore().Addrs(b.h.ID()), func(at ma.Multiaddr) bool { return !addr.Relayed(at) }) {
				t.Fatal("where b was is forgotten between two dials")
			}
		}
		if rest < 10 {
			t.Errorf("not dialed %d times of 500", rest)
		}
	})
}
