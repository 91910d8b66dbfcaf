package discovery

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

func TestAccepted_ThroughRelays(t *testing.T) {
	p, own, other := testID(t), testID(t), testID(t)
	through := func(at string, relay peer.ID) string { return at + "/p2p/" + relay.String() + "/p2p-circuit" }
	const public, private, loop, ws = "/ip4/9.9.9.9/udp/1/quic-v1", "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1", "/ip4/9.9.9.9/tcp/443/tls/ws"
	bare := through("", own)
	only := func(relay peer.ID) bool { return relay == own }
	for name, tc := range map[string]struct {
		from Origin
		in   string
		want string // empty: nothing
	}{
		"own relay":                             {Origin{Relay: only}, through(public, own), through(public, own)},
		"with the peer's ID":                    {Origin{Relay: only}, through(public, own) + "/p2p/" + p.String(), through(public, own)},
		"with another's ID":                     {Origin{Relay: only}, through(public, own) + "/p2p/" + other.String(), ""},
		"over WebSocket":                        {Origin{Relay: only}, through(ws, own), through(ws, own)},
		"somebody's relay":                      {Origin{Relay: only}, through(public, other), ""},
		"without relays":                        {Origin{}, through(public, own), ""},
		"own relay at a place nobody may name":  {Origin{Relay: only, Scope: Public}, through(private, own), bare},
		"own relay on the link":                 {Origin{Relay: only, Scope: Private}, through(private, own), through(private, own)},
		"own relay on this machine":             {Origin{Relay: only, Scope: Private}, through(loop, own), bare},
		"own relay in the cloud's metadata":     {Origin{Relay: only, Scope: Loopback}, through("/ip4/169.254.169.254/tcp/80", own), bare},
		"own relay by a name":                   {Origin{Relay: only}, through("/dns4/relay.example/tcp/1", own), bare},
		"own relay without a port":              {Origin{Relay: only}, through("/ip4/9.9.9.9", own), bare},
		"own relay, no address":                 {Origin{Relay: only}, bare, bare},
		"through two relays":                    {Origin{Relay: func(peer.ID) bool { return true }}, through(through(public, own), other), ""},
		"through the peer itself":               {Origin{Relay: func(peer.ID) bool { return true }}, through(public, p), ""},
		"told by the user":                      {Origin{Explicit: true}, through(loop, other), through(loop, other)},
		"told by the user, not dialable":        {Origin{Explicit: true}, through("/ip4/224.0.0.1/tcp/1", other), ""},
		"told by the user, no address of it":    {Origin{Explicit: true}, through("", other), through("", other)},
		"a relay that is named by no ID at all": {Origin{Explicit: true}, public + "/p2p-circuit", ""},
	} {
		got := accepted(p, []ma.Multiaddr{addrOf(tc.in)}, tc.from)
		switch {
		case tc.want == "" && len(got) > 0:
			t.Errorf("%s: accepted as %v", name, got)
		case tc.want != "" && (len(got) != 1 || got[0].String() != tc.want):
			t.Errorf("%s: %v, want %s", name, got, tc.want)
		}
	}
}

func TestAccepted_RelayedOnesAreBoundedAndLeaveRoom(t *testing.T) {
	p := testID(t)
	var addrs []ma.Multiaddr
	relays := make([]peer.ID, 10)
	for i := range relays {
		relays[i] = testID(t)
	}
	for i := range 200 { // before all direct ones
		addrs = append(addrs, addrOf(fmt.Sprintf("/ip4/9.9.9.%d/tcp/1/p2p/%s/p2p-circuit", i, relays[i%len(relays)])))
	}
	for i := range 20 {
		addrs = append(addrs, addrOf(fmt.Sprintf("/ip4/8.8.8.%d/tcp/1", i)))
	}
	got := accepted(p, addrs, Origin{Relay: func(peer.ID) bool { return true }})
	circuits, of := 0, make(map[peer.ID]bool)
	for _, a := range got {
		if relay, _, ok := addr.SplitRelay(a); ok {
			circuits++
			of[relay] = true
		}
	}
	if len(got) != MaxAddrs || circuits != maxCircuits || len(of) != maxRelays || addr.Relayed(got[0]) {
		t.Errorf("%d addresses, %d of them through %d relays, the first %s", len(got), circuits, len(of), got[0])
	}
}
