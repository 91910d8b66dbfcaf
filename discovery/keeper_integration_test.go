package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/localport"
	"github.com/lynn9388/p2p/internal/poll"
)

const local = "127.0.0.1:0"

// warnings counts and keeps the records at Warn and above.
type warnings struct {
	mu    sync.Mutex
	texts []string
}

func (w *warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (w *warnings) WithAttrs([]slog.Attr) slog.Handler           { return w }
func (w *warnings) WithGroup(string) slog.Handler                { return w }
func (w *warnings) Handle(_ context.Context, r slog.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, r.Message)
	return nil
}

func (w *warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.texts...)
}

func (w *warnings) containing(s string) int {
	n := 0
	for _, t := range w.all() {
		if strings.Contains(t, s) {
			n++
		}
	}
	return n
}

func neighbors(want int, nodes ...*node) func() string {
	return func() string {
		for i, n := range nodes {
			if got := len(n.k.Neighbors()); got != want {
				return fmt.Sprintf("node %d has %d neighbors, want %d", i, got, want)
			}
		}
		return ""
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	port, err := localport.Free()
	must(t, err)
	return port
}

func TestJoin_AnyStartOrder(t *testing.T) {
	var w netw
	port := freePort(t)
	join := func(listen string) *node {
		n := w.add(t, host.Config{}, KeeperConfig{}, BootstrapConfig{}, listen)
		must(t, n.b.Join("localhost:"+port))
		return n
	}
	b, c := join(local), join(local)
	poll.Until(t, 5*time.Second, neighbors(0, b, c))
	a := join("127.0.0.1:" + port) // joins through itself, which is ignored
	t.Logf("neighbors after %v", poll.Until(t, 20*time.Second, neighbors(2, a, b, c)))
}

func TestJoin_RestartedSeedIsTakenBackWithOneWarning(t *testing.T) {
	var w netw
	port := freePort(t)
	var log warnings
	first := w.add(t, host.Config{}, KeeperConfig{}, BootstrapConfig{}, "127.0.0.1:"+port)
	b := w.add(t, host.Config{}, KeeperConfig{Logger: slog.New(&log)}, BootstrapConfig{Book: openBook(t, &memStore{})}, local)
	c := w.add(t, host.Config{}, KeeperConfig{}, BootstrapConfig{}, local)
	must(t, b.b.Join("localhost:"+port))
	must(t, c.b.Join("localhost:"+port))
	poll.Until(t, 20*time.Second, neighbors(2, first, b, c))
	old := first.h.ID()
	first.stop()
	poll.Until(t, 20*time.Second, neighbors(1, b, c))
	again := w.add(t, host.Config{}, KeeperConfig{}, BootstrapConfig{}, "127.0.0.1:"+port)
	t.Logf("back after %v", poll.Until(t, 30*time.Second, neighbors(2, again, b, c)))
	// It may have been heard of from the others first.
	poll.Until(t, 10*time.Second, func() string {
		if got := log.all(); len(got) != 1 || !strings.Contains(got[0], old.String()) || !strings.Contains(got[0], again.h.ID().String()) {
			return fmt.Sprintf("warnings %q, want one that names both", got)
		}
		return ""
	})
}

func TestJoin_WrongIDIsNamedAndNotTrusted(t *testing.T) {
	t.Parallel()
	var w netw
	var log warnings
	a := w.add(t, host.Config{}, KeeperConfig{}, BootstrapConfig{}, local)
	b := w.add(t, host.Config{}, KeeperConfig{Logger: slog.New(&log)}, BootstrapConfig{}, local)
	want := testID(t)
	must(t, b.b.Join(want.String()+"@127.0.0.1:"+listenPort(a.h)))
	poll.Until(t, 20*time.Second, func() string {
		if log.containing("want "+want.String()+", got "+a.h.ID().String()) == 0 {
			return fmt.Sprintf("warnings %q", log.all())
		}
		return ""
	})
	if len(b.k.Neighbors()) > 0 {
		t.Error("it was trusted")
	}
	err := b.k.Connect(t.Context(), peer.AddrInfo{ID: want, Addrs: a.h.Addrs()})
	if err == nil || !strings.Contains(err.Error(), a.h.ID().String()) || !strings.Contains(err.Error(), want.String()) {
		t.Errorf("connect: %v, want both IDs", err)
	}
}

func TestKeeper_RedialsOneThatComesBack(t *testing.T) {
	var w netw
	key := testKey(t)
	port := freePort(t)
	a := w.add(t, host.Config{Identity: key}, KeeperConfig{}, BootstrapConfig{}, "127.0.0.1:"+port)
	b := w.add(t, host.Config{}, KeeperConfig{}, BootstrapConfig{}, local)
	must(t, b.k.Connect(t.Context(), peer.AddrInfo{ID: a.h.ID(), Addrs: a.h.Addrs()}))
	poll.Until(t, 10*time.Second, neighbors(1, a, b))
	a.stop()
	poll.Until(t, 10*time.Second, neighbors(0, b))
	again := w.add(t, host.Config{Identity: key}, KeeperConfig{}, BootstrapConfig{}, "127.0.0.1:"+port)
	t.Logf("back after %v", poll.Until(t, 20*time.Second, neighbors(1, again, b)))
}

func TestKeeper_StrangersAreLetGo(t *testing.T) {
	t.Parallel()
	var w netw
	var denied atomic.Bool
	a := w.add(t, host.Config{}, KeeperConfig{Allow: func(peer.ID) bool { return !denied.Load() }}, BootstrapConfig{}, local)
	other := w.add(t, host.Config{}, KeeperConfig{Member: "/p2p/other/grpc/1.0.0"}, BootstrapConfig{}, local)
	if err := a.k.Connect(t.Context(), peer.AddrInfo{ID: other.h.ID(), Addrs: other.h.Addrs()}); err == nil {
		t.Error("a peer of another network was accepted")
	}
	poll.Until(t, 10*time.Second, func() string {
		if n := len(a.h.Network().Conns()); n > 0 {
			return "the stranger is still connected"
		}
		return ""
	})
	friend := w.add(t, host.Config{}, KeeperConfig{}, BootstrapConfig{}, local)
	must(t, a.k.Connect(t.Context(), peer.AddrInfo{ID: friend.h.ID(), Addrs: friend.h.Addrs()}))
	if got := a.k.Records(MaxRecords, "", Loopback); len(got) != 1 {
		t.Errorf("%d records, want that of the friend", len(got))
	}
	denied.Store(true)
	t.Logf("cut off after %v", poll.Until(t, 10*time.Second, neighbors(0, a)))
	if got := a.k.Records(MaxRecords, "", Loopback); len(got) != 0 {
		t.Errorf("%d records of one who is not allowed", len(got))
	}
}

func TestKeeper_DisconnectAndForget(t *testing.T) {
	var w netw
	a := w.add(t, host.Config{}, KeeperConfig{}, BootstrapConfig{}, local)
	b := w.add(t, host.Config{}, KeeperConfig{}, BootstrapConfig{}, local)
	info := peer.AddrInfo{ID: b.h.ID(), Addrs: b.h.Addrs()}
	must(t, a.k.Connect(t.Context(), info))
	poll.Until(t, 10*time.Second, neighbors(1, a, b))
	must(t, a.k.Disconnect(b.h.ID()))
	poll.Until(t, 10*time.Second, neighbors(0, a, b))
	if p, ok := a.k.Peer(b.h.ID()); !ok || p.State == Neighbor {
		t.Errorf("after Disconnect: %+v, %v", p, ok)
	}
	must(t, a.k.Forget(b.h.ID()))
	if _, ok := a.k.Peer(b.h.ID()); ok {
		t.Error("it is still known")
	}
	if err := a.k.Forget(testID(t)); err == nil {
		t.Error("an unknown peer was forgotten")
	}
	must(t, a.k.Connect(t.Context(), info))
	poll.Until(t, 10*time.Second, neighbors(1, a, b))
}

func TestKeeper_ConnectErrorsSayWhy(t *testing.T) {
	var w netw
	a := w.add(t, host.Config{}, KeeperConfig{}, BootstrapConfig{}, local)
	nobody := testID(t)
	for _, tc := range []struct {
		name string
		info peer.AddrInfo
		want string
	}{
		{"oneself", peer.AddrInfo{ID: a.h.ID(), Addrs: a.h.Addrs()}, "own ID"},
		{"no address", peer.AddrInfo{ID: nobody}, "ID@host:port"},
		{"metadata", peer.AddrInfo{ID: nobody, Addrs: []ma.Multiaddr{addrOf("/ip4/169.254.169.254/tcp/80")}}, "can be dialed"},
		{"refused", peer.AddrInfo{ID: nobody, Addrs: []ma.Multiaddr{addrOf("/ip4/127.0.0.1/tcp/1")}}, "refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := a.k.Connect(t.Context(), tc.info)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, tc.want)
			}
		})
	}
}

// gate notes the addresses that are dialed, and lets none be.
type gate struct {
	mu    sync.Mutex
	dials []string
}

func (g *gate) dialed() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Compact(slices.Sorted(slices.Values(g.dials)))
}

func (g *gate) InterceptPeerDial(peer.ID) bool { return true }
func (g *gate) InterceptAddrDial(_ peer.ID, at ma.Multiaddr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dials = append(g.dials, at.String())
	return false
}

func (g *gate) InterceptAccept(network.ConnMultiaddrs) bool { return true }

func (g *gate) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool { return true }

func (g *gate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

func TestKeeper_BadAddressesAreNotDialed(t *testing.T) {
	var g gate
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.ConnectionGater(&g))
	must(t, err)
	k := NewKeeper(h, KeeperConfig{Logger: quiet()})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = k.Run(ctx) })
	defer func() { cancel(); wg.Wait(); _ = h.Close() }()
	bad := []string{
		"/ip4/127.0.0.1/tcp/%d", "/ip4/169.254.169.254/tcp/%d", "/ip4/192.168.0.1/tcp/%d", "/ip4/10.0.0.1/udp/%d/quic-v1",
		"/ip4/224.0.0.1/tcp/%d", "/ip4/0.0.0.0/tcp/%d", "/ip6/::1/tcp/%d", "/ip6/fe80::1/tcp/%d", "/dns4/localhost/tcp/%d",
		"/ip6/fd00:ec2::254/tcp/%d",
	}
	for i := range 10_000 {
		info := peer.AddrInfo{ID: peer.ID(fmt.Sprintf("peer-%d", i))}
		info.Addrs = append(info.Addrs, addrOf(fmt.Sprintf(bad[i%len(bad)], i+1)))
		k.Found(info, Origin{Source: "stranger", Scope: Public})
	}
	if n := len(k.Peers()); n > 0 {
		t.Errorf("%d peers are known", n)
	}
	// What may be dialed is: the gate sees it.
	const good = "/ip4/9.9.9.9/tcp/1"
	key := testKey(t)
	id, _ := peer.IDFromPrivateKey(key)
	k.Found(peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{addrOf(good)}}, Origin{Source: "stranger", Scope: Public})
	poll.Until(t, 10*time.Second, func() string {
		if len(g.dialed()) == 0 {
			return "nothing was dialed"
		}
		return ""
	})
	if got := g.dialed(); !slices.Equal(got, []string{good}) {
		t.Errorf("%d addresses were dialed: %q", len(got), got)
	}
}

func TestKeeper_IdentifyCannotNameNarrowAddresses(t *testing.T) {
	var w netw
	a := w.add(t, host.Config{}, KeeperConfig{}, BootstrapConfig{}, local)
	b := w.add(t, host.Config{Libp2p: []libp2p.Option{libp2p.AddrsFactory(func(addrs []ma.Multiaddr) []ma.Multiaddr {
		for i := range 100 {
			addrs = append(addrs, addrOf(fmt.Sprintf("/ip4/169.254.169.254/tcp/%d", i+1)), addrOf(fmt.Sprintf("/ip4/9.9.9.9/tcp/%d", i+1)))
		}
		return addrs
	})}}, KeeperConfig{}, BootstrapConfig{}, local)
	must(t, a.k.Connect(t.Context(), peer.AddrInfo{ID: b.h.ID(), Addrs: []ma.Multiaddr{addrOf("/ip4/127.0.0.1/tcp/" + listenPort(b.h))}}))
	poll.Until(t, 5*time.Second, func() string {
		addrs := a.h.Peerstore().Addrs(b.h.ID())
		if len(addrs) > MaxAddrs+1 {
			return fmt.Sprintf("the peerstore has %d addresses", len(addrs))
		}
		for _, x := range addrs {
			if !(Origin{Explicit: true}).accepts(x) {
				return fmt.Sprintf("the peerstore has %v", x)
			}
		}
		return ""
	})
}

func TestKeeper_CloneIsNamedOnBoth(t *testing.T) {
	var w netw
	key := testKey(t)
	var logs [2]warnings
	a := w.add(t, host.Config{Identity: key}, KeeperConfig{Logger: slog.New(&logs[0])}, BootstrapConfig{}, local)
	b := w.add(t, host.Config{Identity: key}, KeeperConfig{Logger: slog.New(&logs[1])}, BootstrapConfig{}, local)
	// As mDNS tells each of them.
	from := Origin{Source: "mdns", Scope: Loopback}
	a.k.Found(peer.AddrInfo{ID: b.h.ID(), Addrs: b.h.Addrs()}, from)
	b.k.Found(peer.AddrInfo{ID: a.h.ID(), Addrs: a.h.Addrs()}, from)
	a.k.Found(peer.AddrInfo{ID: a.h.ID(), Addrs: a.h.Addrs()}, from) // its own echo
	poll.Until(t, 10*time.Second, func() string {
		for i := range logs {
			if logs[i].containing("was copied") != 1 {
				return fmt.Sprintf("node %d warned %q", i, logs[i].all())
			}
		}
		return ""
	})
}
