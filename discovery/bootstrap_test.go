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
