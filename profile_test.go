package p2p_test

import (
	"context"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p"
)

const someID = "12D3KooWRrNnNfVdUWi9vd6QMoGwhAbv8i7GEB1mjuV1hLLuFs1d"

func authorizeAll(context.Context, p2p.PeerInfo, string) error { return nil }

func TestProfiles_RefuseToStartWhenNobodySaidWhoMayCall(t *testing.T) {
	id, err := peer.Decode(someID)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		opts []p2p.Option
		want string // in the error; empty: accepted
	}{
		{"WAN", []p2p.Option{p2p.WAN()}, "WithOpen"},
		{"WAN with a relay", []p2p.Option{p2p.WAN(someID + "@192.0.2.1:9388")}, "WithAllowFile"},
		{"WAN listed", []p2p.Option{p2p.WAN(), p2p.WithAllow(id)}, ""},
		{"WAN for nobody", []p2p.Option{p2p.WAN(), p2p.WithAllow()}, ""},
		{"WAN decided", []p2p.Option{p2p.WAN(), p2p.WithAuthorizer(authorizeAll)}, ""},
		{"WAN open", []p2p.Option{p2p.WithOpen(), p2p.WAN()}, ""},
		{"Relay", []p2p.Option{p2p.Relay()}, "WithOpen"},
		{"Relay decided", []p2p.Option{p2p.Relay(), p2p.WithAuthorizer(authorizeAll)}, "not who is relayed"},
		{"Relay listed and decided", []p2p.Option{p2p.Relay(), p2p.WithAllow(id), p2p.WithAuthorizer(authorizeAll)}, ""},
		{"Relay listed", []p2p.Option{p2p.Relay(), p2p.WithAllow(id)}, ""},
		{"Relay open", []p2p.Option{p2p.Relay(), p2p.WithOpen()}, ""},
		{"the later profile holds", []p2p.Option{p2p.WAN(), p2p.LAN()}, ""},
	} {
		err := p2p.NewNode("localhost:0", append(tc.opts, quiet())...).JoinNetwork()
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: %v, want an error with %q", tc.name, err, tc.want)
		}
	}
}

func TestWAN_RefusesWhatIsNoRelay(t *testing.T) {
	for _, bad := range []string{
		"", "nonsense", someID, ":9388", "alice@192.0.2.1:9388", someID + "@192.0.2.1",
		someID + "@" + someID + "@192.0.2.1:9388",
		"/ip4/192.0.2.1/tcp/1/p2p/" + someID + "/p2p-circuit/p2p/" + someID,
	} {
		err := p2p.NewNode("localhost:0", p2p.WAN(bad), p2p.WithOpen(), quiet()).StartServer()
		if err == nil || !strings.Contains(err.Error(), `"`+bad+`"`) || !strings.Contains(err.Error(), "WAN") {
			t.Errorf("%q: %v, want an error that names it", bad, err)
		}
	}
}

func TestWithWebSocket_RefusesWhatIsNoPlaceToListen(t *testing.T) {
	for _, bad := range []string{"", "443", "localhost", ":https", ":70000"} {
		err := p2p.NewNode("localhost:0", p2p.WithWebSocket(bad), quiet()).StartServer()
		if err == nil || !strings.Contains(err.Error(), `WithWebSocket("`+bad+`")`) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
