package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"

	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/internal/virtual"
)

// bubble is a simulated network in virtual time, with keepers.
type bubble struct {
	t   *testing.T
	net *hosttest.Network
	ctx context.Context //nolint:containedctx // the bubble's, for the goroutines that it ends with
	wg  sync.WaitGroup
}

func inBubble(t *testing.T, f func(t *testing.T, b *bubble)) {
	t.Helper()
	// A signed record's sequence number is the time, and libp2p never gives out a smaller one than before in the whole
	// process: a bubble whose clock is decades behind would take the records of a test after one in real time for ones
	// from the future.
	now := time.Now().Round(0)
	virtual.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(now))
		ctx, cancel := context.WithCancel(t.Context())
		b := &bubble{t: t, net: hosttest.New(t), ctx: ctx}
		defer func() { // also of a test that gave up: a bubble panics about what is left in it, which hides why
			cancel()
			b.wg.Wait()
			b.net.Close()
		}()
		f(t, b)
	})
}

func (b *bubble) keeper(cfg KeeperConfig) (corehost.Host, *Keeper) {
	b.t.Helper()
	h := b.net.Host()
	h.SetStreamHandler(testMember, func(s network.Stream) { _ = s.Reset() })
	synctest.Wait() // until identify tells of it, or what it says first may come last
	cfg.Member = testMember
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	k := NewKeeper(h, cfg)
	b.wg.Go(func() { _ = k.Run(b.ctx) })
	return h, k
}

// dialable addresses of a simulated host.
func simAddrs(h corehost.Host) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range h.Network().ListenAddresses() {
		if connScope(a) == Private {
			out = append(out, a)
		}
	}
	return out
}

func (b *bubble) within(limit time.Duration, what func() string) time.Duration {
	b.t.Helper()
	return poll.Until(b.t, limit, func() string {
		synctest.Wait()
		return what()
	})
}

func has1(k *Keeper) func() string {
	return func() string {
		if n := len(k.Neighbors()); n != 1 {
			return fmt.Sprintf("%d neighbors, want 1", n)
		}
		return ""
	}
}

var lanOrigin = Origin{Source: "mdns", Scope: Private}

func TestKeeper_CutOffForAMinuteIsBackSoon(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		ah, a := b.keeper(KeeperConfig{})
		bh, bk := b.keeper(KeeperConfig{})
		a.Found(peer.AddrInfo{ID: bh.ID(), Addrs: simAddrs(bh)}, lanOrigin)
		b.within(time.Second, has1(a))
		b.within(time.Second, has1(bk))
		if !ah.ConnManager().IsProtected(bh.ID(), protectTag) {
			t.Error("a neighbor is not protected")
		}
		b.net.Cut(ah, bh)
		time.Sleep(time.Minute)
		if n := len(a.Neighbors()); n != 0 {
			t.Fatalf("%d neighbors over a cut cable", n)
		}
		if ah.ConnManager().IsProtected(bh.ID(), protectTag) {
			t.Error("one who is gone is protected")
		}
		b.net.HealAll()
		t.Logf("back after %v", b.within(5*time.Second, func() string { return has1(a)() + has1(bk)() }))
	})
}

// A host tells of a new handler by identify a moment after it has it: who calls right after its start is no stranger.
func TestKeeper_WhoCallsRightAfterItsStartIsNoStranger(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		ah, a := b.keeper(KeeperConfig{})
		bh := b.net.Host()
		must(t, bh.Connect(t.Context(), peer.AddrInfo{ID: ah.ID(), Addrs: simAddrs(ah)}))
		conn := bh.Network().ConnsToPeer(ah.ID())[0]
		time.Sleep(200 * time.Millisecond)
		bh.SetStreamHandler(testMember, func(s network.Stream) { _ = s.Reset() })
		b.within(time.Second, has1(a))
		time.Sleep(time.Minute)
		if conn.IsClosed() || len(a.Neighbors()) != 1 {
			t.Error("its connection was closed")
		}

		ch := b.net.Host()
		must(t, ch.Connect(t.Context(), peer.AddrInfo{ID: ah.ID(), Addrs: simAddrs(ah)}))
		t.Logf("a stranger is gone after %v", b.within(memberWithin+time.Second, func() string {
			if len(ch.Network().ConnsToPeer(ah.ID())) > 0 {
				return "a stranger is connected"
			}
			return ""
		}))
	})
}

func TestKeeper_UnreachableIsSaidOnceWithTheRemedy(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var log warnings
		ah, a := b.keeper(KeeperConfig{Logger: slog.New(&log)})
		bh, _ := b.keeper(KeeperConfig{})
		b.net.Cut(ah, bh)
		events := a.Events(t.Context())
		a.Found(peer.AddrInfo{ID: bh.ID(), Addrs: simAddrs(bh)}, lanOrigin)
		start := time.Now()
		for e := range events {
			if e.Kind == PeerUnreachable {
				if d := time.Since(start); d > 10*time.Second {
					t.Errorf("said after %v", d)
				}
				for _, want := range []string{bh.ID().String(), "10.0.0.2:9388", "allow inbound TCP and UDP port 9388"} {
					if !strings.Contains(e.Err.Error(), want) {
						t.Errorf("%q does not say %q", e.Err, want)
					}
				}
				break
			}
		}
		time.Sleep(10 * time.Minute)
		if n := log.containing("does not answer"); n != 1 {
			t.Errorf("said %d times", n)
		}
		b.net.HealAll()
		b.within(8*time.Minute, has1(a))
	})
}

// Two that hear each other and drop what comes in are neighbors soon after a person has opened the firewalls, however
// long that took.
func TestKeeper_FirewallThatIsOpenedLate(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		ah, a := b.keeper(KeeperConfig{})
		bh, bk := b.keeper(KeeperConfig{})
		b.net.Cut(ah, bh)
		for range 10 { // multicast DNS tells each five minutes
			a.Found(peer.AddrInfo{ID: bh.ID(), Addrs: simAddrs(bh)}, lanOrigin)
			bk.Found(peer.AddrInfo{ID: ah.ID(), Addrs: simAddrs(ah)}, lanOrigin)
			time.Sleep(5 * time.Minute)
		}
		b.net.HealAll()
		t.Logf("neighbors after %v", b.within(10*time.Second, func() string { return has1(a)() + has1(bk)() }))
	})
}

func TestKeeper_SecondhandPeersAreNotComplainedOf(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var log warnings
		_, a := b.keeper(KeeperConfig{Logger: slog.New(&log)})
		key := testKey(t)
		id, _ := peer.IDFromPrivateKey(key)
		a.FoundRecords([][]byte{signed(t, key, id, time.Now(), "/ip4/10.9.9.9/udp/1/quic-v1")}, Origin{Source: "exchange", Scope: Private})
		time.Sleep(time.Minute)
		if got := log.all(); len(got) > 0 {
			t.Errorf("warned %q", got)
		}
		if p, _ := a.Peer(id); p.LastError == "" {
			t.Error("it was not dialed")
		}
	})
}

func TestKeeper_BookIsRecalledAndKept(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var s memStore
		bh, _ := b.keeper(KeeperConfig{})
		book := openBook(t, &s)
		must(t, book.remember([]peer.AddrInfo{{ID: bh.ID(), Addrs: simAddrs(bh)}}))
		_, a := b.keeper(KeeperConfig{Book: openBook(t, &s)})
		b.within(2*time.Second, has1(a))
		ch, c := b.keeper(KeeperConfig{})
		c.Found(peer.AddrInfo{ID: a.h.ID(), Addrs: simAddrs(a.h)}, lanOrigin)
		time.Sleep(bookEvery + time.Second)
		if got := openBook(t, &s).Peers(); !slices.ContainsFunc(got, func(i peer.AddrInfo) bool { return i.ID == ch.ID() }) {
			t.Errorf("the new neighbor is not in the book: %v", got)
		}
	})
}

func TestFollow_RunsAFailedSourceAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		_, a := b.keeper(KeeperConfig{})
		s := &failing{}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := a.Follow(ctx, s); err != nil {
			t.Errorf("error %v", err)
		}
		if s.runs != 4 { // after 0, 1, 3 and 7 seconds
			t.Errorf("run %d times in 10 s", s.runs)
		}
	})
}

type failing struct{ runs int }

func (f *failing) String() string { return "failing" }
func (f *failing) Run(context.Context, corehost.Host, func(peer.AddrInfo)) error {
	f.runs++
	return errors.New("not now")
}

// follow runs a bootstrap for a keeper.
func (b *bubble) follow(k *Keeper, cfg BootstrapConfig, join ...string) *Bootstrap {
	b.t.Helper()
	cfg.Keeper = k
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	bs := NewBootstrap(cfg)
	must(b.t, bs.Join(join...))
	b.wg.Go(func() { _ = k.Follow(b.ctx, bs) })
	return bs
}

func quicAt(h corehost.Host) string { return simAddrs(h)[0].String() }

func TestBootstrap_PinRefusesAnother(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var s memStore
		var log warnings
		bh, _ := b.keeper(KeeperConfig{})
		book := openBook(t, &s)
		old := testID(t)
		must(t, book.SetPin("10.0.0.1:9388", old))
		_, a := b.keeper(KeeperConfig{Book: book, Logger: slog.New(&log)})
		b.follow(a, BootstrapConfig{Book: book, Logger: slog.New(&log)}, quicAt(bh))
		time.Sleep(5 * time.Minute)
		if n := len(a.Neighbors()); n != 0 {
			t.Fatal("another than the pinned one was accepted")
		}
		got := log.all()
		if len(got) != 1 || !strings.Contains(got[0], old.String()) || !strings.Contains(got[0], bh.ID().String()) ||
			!strings.Contains(got[0], "p2p peers forget "+old.String()) {
			t.Errorf("warnings %q, want one with both IDs and the command", got)
		}
		must(t, a.Forget(old))
		b.within(time.Minute, has1(a))
		if got, _ := book.Pin("10.0.0.1:9388"); got != bh.ID() {
			t.Errorf("pinned is %v", got)
		}
	})
}

func TestBootstrap_FirstUseIsPinnedWithABookOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		bh, _ := b.keeper(KeeperConfig{})
		book := openBook(t, &memStore{})
		_, a := b.keeper(KeeperConfig{})
		b.follow(a, BootstrapConfig{Book: book}, quicAt(bh))
		b.within(time.Second, has1(a))
		if got, _ := book.Pin("10.0.0.1:9388"); got != bh.ID() {
			t.Errorf("pinned is %v, want %v", got, bh.ID())
		}
	})
}

func TestBootstrap_WithoutABookAnotherIsAcceptedWithOneWarning(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var log warnings
		bh, _ := b.keeper(KeeperConfig{})
		ch, _ := b.keeper(KeeperConfig{})
		_, a := b.keeper(KeeperConfig{Logger: slog.New(&log)})
		var mu sync.Mutex
		there := bh
		b.follow(a, BootstrapConfig{
			Logger: slog.New(&log),
			identify: func(context.Context, corehost.Host, ma.Multiaddr) (peer.ID, error) {
				mu.Lock()
				defer mu.Unlock()
				return there.ID(), nil
			},
		}, quicAt(bh))
		b.within(time.Second, has1(a))
		mu.Lock()
		there = ch
		mu.Unlock()
		_ = bh.Close()
		time.Sleep(2 * time.Minute)
		if n := log.containing("another peer answers"); n != 1 {
			t.Errorf("warnings %q, want one", log.all())
		}
	})
}

func TestBootstrap_NameWithSeveralAddressesJoinsAll(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		bh, _ := b.keeper(KeeperConfig{})
		ch, _ := b.keeper(KeeperConfig{})
		dh, _ := b.keeper(KeeperConfig{})
		resolver, err := madns.NewResolver(madns.WithDefaultResolver(&madns.MockResolver{
			IP: map[string][]net.IPAddr{"seeds.example": {{IP: net.IPv4(10, 0, 0, 1)}, {IP: net.IPv4(10, 0, 0, 2)}, {IP: net.IPv4(169, 254, 169, 254)}}},
			TXT: map[string][]string{"_dnsaddr.more.example": {
				"dnsaddr=" + quicAt(dh) + "/p2p/" + dh.ID().String(), "dnsaddr=/dnsaddr/more.example",
			}},
		}))
		must(t, err)
		_, a := b.keeper(KeeperConfig{})
		b.follow(a, BootstrapConfig{Resolver: resolver}, "/dns4/seeds.example/udp/9388/quic-v1", "/dnsaddr/more.example")
		b.within(5*time.Second, func() string {
			for _, h := range []corehost.Host{bh, ch, dh} {
				if !slices.Contains(a.Neighbors(), h.ID()) {
					return fmt.Sprintf("%v is no neighbor", h.ID())
				}
			}
			return ""
		})
	})
}

func TestBootstrap_PaceAndBounds(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		_, a := b.keeper(KeeperConfig{})
		var mu sync.Mutex
		var tries []time.Time
		b.follow(a, BootstrapConfig{identify: func(context.Context, corehost.Host, ma.Multiaddr) (peer.ID, error) {
			mu.Lock()
			defer mu.Unlock()
			tries = append(tries, time.Now())
			return "", errors.New("connection refused")
		}}, "10.0.0.99:9388")
		time.Sleep(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		early, late := 0, 0
		for i, at := range tries[1:] {
			gap := at.Sub(tries[i])
			switch {
			case at.Sub(tries[0]) < joinFirst:
				early++
				if gap > joinSoon*5/4 {
					t.Errorf("a gap of %v in the first minute", gap)
				}
			case at.Sub(tries[0]) > joinFirst+joinFar:
				late++
				if gap > 0 && gap < joinNear*3/4 {
					t.Errorf("a gap of %v later", gap)
				}
			}
		}
		if early < 25 || late < 200 {
			t.Errorf("%d tries in the first minute, %d later", early, late)
		}
	})
}

func TestBootstrap_BadAddressesAndLeave(t *testing.T) {
	b := NewBootstrap(BootstrapConfig{})
	for _, bad := range []string{"", "nohost", "localhost:0", "localhost:x", "/ip4/1.2.3.4/tcp/x", testID(t).String(), "x@localhost:1"} {
		if err := b.Join("localhost:1", bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if got := b.Joined(); len(got) != 0 {
		t.Errorf("joined %q by a call that failed", got)
	}
	must(t, b.Join("localhost:1", "localhost:2", "localhost:1"))
	b.Leave("localhost:1", "localhost:3")
	if got := b.Joined(); !slices.Equal(got, []string{"localhost:2"}) {
		t.Errorf("joined %q", got)
	}
}
