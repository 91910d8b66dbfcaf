package discovery

import (
	"context"
	"errors"
	"testing"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// A joined peer that is being dialed is no peer that is there: who answers in its place must be noticed soon.
func TestBootstrap_ADialUnderWaySettlesNothing(t *testing.T) {
	h, p := quietHost(t), testID(t)
	k := NewKeeper(h, KeeperConfig{Logger: quiet()})
	for _, join := range []string{"10.0.0.1:9388", p.String() + "@10.0.0.1:9388"} {
		asked, found := 0, 0
		b := NewBootstrap(BootstrapConfig{Keeper: k, Logger: quiet(), identify: func(context.Context, corehost.Host, ma.Multiaddr) (peer.ID, error) {
			asked++
			return "", errors.New("nobody")
		}})
		must(t, b.Join(join))
		j := b.joined[join]
		j.seen["10.0.0.1:9388"] = p
		for _, tc := range []struct {
			name  string
			entry entry
			want  bool
			dials bool // it is asked who is there, or dialed
		}{
			{"being dialed", entry{id: p, busy: true}, false, false},
			{"connected", entry{id: p, conns: 1}, true, false},
			{"it let this node go", entry{id: p, full: 1, next: time.Now().Add(time.Hour)}, true, false},
			{"it let this node go long ago", entry{id: p, full: 1}, false, true},
			{"known", entry{id: p}, false, true},
		} {
			asked, found = 0, 0
			k.core.peers[p] = &tc.entry
			ok, _ := b.try(t.Context(), h, j, func(peer.AddrInfo) { found++ })
			if ok != tc.want || (asked+found > 0) != tc.dials {
				t.Errorf("%s, %s: settled %v, asked %d, found %d", join, tc.name, ok, asked, found)
			}
		}
	}
}

// The user forgets the peer that was seen first at a joined address: it is not taken back for what it was, and another
// one there is accepted, without a restart.
func TestBootstrap_AfterForgetAnotherIsAccepted(t *testing.T) {
	const place = "10.0.0.1:9388"
	h, book, first, second := quietHost(t), openBook(t, &memStore{}), testID(t), testID(t)
	k := NewKeeper(h, KeeperConfig{Book: book, Logger: quiet()})
	there := first
	b := NewBootstrap(BootstrapConfig{Keeper: k, Book: book, Logger: quiet(), identify: func(context.Context, corehost.Host, ma.Multiaddr) (peer.ID, error) {
		return there, nil
	}})
	must(t, b.Join(place))
	try := func() (ok bool, found peer.ID) {
		ok, _ = b.try(t.Context(), h, b.joined[place], func(info peer.AddrInfo) { found = info.ID })
		return ok, found
	}
	if _, found := try(); found != first {
		t.Fatalf("found %v", found)
	}
	must(t, k.Forget(first))
	if ok, found := try(); !ok || found != "" {
		t.Errorf("still there after Forget: settled %v, found %v", ok, found)
	}
	if p, ok := book.Pin(place); ok {
		t.Errorf("%v is pinned again", p)
	}
	there = second
	if _, found := try(); found != second {
		t.Errorf("another one there: found %v", found)
	}
	if p, _ := book.Pin(place); p != second {
		t.Errorf("%v is pinned, want %v", p, second)
	}
}

// While the keeper sets a peer's addresses somebody may dial it: at no moment are there none.
func TestKeeper_SettingAddressesLeavesNoGap(t *testing.T) {
	h, p := quietHost(t), testID(t)
	k := NewKeeper(h, KeeperConfig{Logger: quiet()})
	a, b, c := addrOf("/ip4/10.0.0.1/tcp/1"), addrOf("/ip4/10.0.0.1/tcp/2"), addrOf("/ip4/10.0.0.1/tcp/3")
	k.setAddrs(p, []ma.Multiaddr{a, b}, false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 2000 {
			k.setAddrs(p, []ma.Multiaddr{b, []ma.Multiaddr{a, c}[i%2]}, i%3 == 0)
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if len(h.Peerstore().Addrs(p)) == 0 {
			t.Fatal("there are no addresses for a moment")
		}
	}
	if got := h.Peerstore().Addrs(p); len(got) != 2 {
		t.Errorf("the addresses are %v, want two", got)
	}
	k.setAddrs(p, nil, false)
	if got := h.Peerstore().Addrs(p); len(got) != 0 {
		t.Errorf("%v are left", got)
	}
}
