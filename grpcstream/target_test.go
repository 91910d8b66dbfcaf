package grpcstream

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

const testID = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"

func TestParseTarget(t *testing.T) {
	id, err := peer.Decode(testID)
	if err != nil {
		t.Fatal(err)
	}
	multiaddr := "/ip4/192.0.2.1/tcp/9388/p2p/" + testID
	for target, want := range map[string]struct {
		peer    bool
		addrs   int
		service string
	}{
		testID:                         {peer: true},
		"libp2p:///" + testID:          {peer: true},
		"libp2p://" + testID:           {peer: true},
		"libp2p:" + testID:             {peer: true},
		testID + "@localhost:9388":     {peer: true, addrs: 2},
		multiaddr:                      {peer: true, addrs: 1},
		"libp2p://" + multiaddr:        {peer: true, addrs: 1},
		"libp2p:///" + multiaddr:       {peer: true, addrs: 1},
		"libp2p:///" + multiaddr[1:]:   {peer: true, addrs: 1},
		"chat.v1.ChatService":          {service: "chat.v1.ChatService"},
		"libp2p:///chat.v1.Chat":       {service: "chat.v1.Chat"},
		"/p2p/" + testID:               {peer: true},
		"libp2p:///%2Fp2p%2F" + testID: {peer: true},
	} {
		got, err := parseTarget(target)
		if err != nil {
			t.Errorf("%q: %v", target, err)
			continue
		}
		if (got.peer == id) != want.peer || len(got.addrs) != want.addrs || got.service != want.service {
			t.Errorf("%q: %+v", target, got)
		}
	}
	for _, target := range []string{"", "libp2p:///", "a b", "x@y", testID + "@", "/ip4/192.0.2.1/tcp/1", "/p2p/x", "host:9388", "a/b", "\x00"} {
		if got, err := parseTarget(target); err == nil {
			t.Errorf("%q: %+v, want an error", target, got)
		} else {
			wantReason(t, err, ReasonBadTarget)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"", testID, testID + "@localhost:1", "/ip4/1.2.3.4/udp/1/quic-v1/p2p/" + testID, "libp2p:////dns/x/tcp/1/p2p/" + testID, "a.B", "%zz", "libp2p:///%2f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sel, err := parseTarget(s)
		if (err == nil) == (sel == nil) {
			t.Fatalf("%v, %v", sel, err)
		}
		if err != nil {
			wantReason(t, err, ReasonBadTarget)
			return
		}
		if (sel.peer == "") == (sel.service == "") {
			t.Fatalf("%q names both or neither: %+v", s, sel)
		}
	})
}

func TestServiceOf(t *testing.T) {
	for method, want := range map[string]string{"/x.A/M": "x.A", "x.A/M": "x.A", "/x.A/y/M": "x.A/y", "": "", "M": "M", "/": ""} {
		if got := serviceOf(method); got != want {
			t.Errorf("%q: %q, want %q", method, got, want)
		}
	}
}
