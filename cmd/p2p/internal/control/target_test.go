package control

import (
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
)

const (
	alice   = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
	mallory = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
)

func decode(t *testing.T, s string) peer.ID {
	t.Helper()
	id, err := peer.Decode(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestResolve(t *testing.T) {
	pinned := func(name string) (peer.ID, bool) {
		if name == "alice" {
			return decode(t, alice), true
		}
		return "", false
	}
	// Mallory claims the name that is pinned to alice, and one that is pinned to nobody.
	peers := func() []p2p.PeerInfo {
		return []p2p.PeerInfo{{ID: decode(t, mallory), Name: "alice"}, {ID: decode(t, mallory), Name: "bob"}, {ID: decode(t, alice), Name: "twin"}, {ID: decode(t, mallory), Name: "twin"}}
	}
	for _, tc := range []struct {
		name, in string
		id       string
		dial     string
		code     codes.Code
		text     string
	}{
		{name: "an ID", in: alice, id: alice, dial: alice},
		{name: "an ID at a place", in: alice + "@127.0.0.1:9388", id: alice, dial: alice + "@127.0.0.1:9388"},
		{name: "a multiaddr", in: "/ip4/127.0.0.1/tcp/1/p2p/" + alice, id: alice, dial: "/ip4/127.0.0.1/tcp/1/p2p/" + alice},
		{name: "a pinned name, which another peer claims", in: "alice", id: alice, dial: alice},
		{name: "a claimed name", in: "bob", code: codes.FailedPrecondition, text: "p2p peers pin " + mallory + " bob"},
		{name: "a name claimed by two", in: "twin", code: codes.FailedPrecondition, text: "2 peers call themselves"},
		{name: "an unknown name", in: "carol", code: codes.FailedPrecondition, text: "p2p peers ls"},
		{name: "nothing", in: "", code: codes.InvalidArgument},
		{name: "half an ID", in: alice[:20], code: codes.InvalidArgument, text: "not a peer ID"},
		{name: "a bad ID at a place", in: "x@127.0.0.1:9388", code: codes.InvalidArgument, text: `"x" is not a peer ID`},
		{name: "a place alone", in: "127.0.0.1:9388", code: codes.InvalidArgument},
		{name: "a multiaddr without ID", in: "/ip4/127.0.0.1/tcp/1", code: codes.InvalidArgument, text: "/p2p/ID"},
		{name: "terminal text", in: "\x1b[2J", code: codes.FailedPrecondition, text: `\x1b[2J`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := resolve(tc.in, pinned, peers)
			if status.Code(err) != tc.code {
				t.Fatalf("got %v, want %v", err, tc.code)
			}
			if err != nil {
				if !strings.Contains(err.Error(), tc.text) {
					t.Errorf("got %q, want %q in it", err, tc.text)
				}
				return
			}
			if got.id.String() != tc.id || got.dial != tc.dial {
				t.Errorf("got %v, %s", got.id, got.dial)
			}
		})
	}
}

func FuzzResolve(f *testing.F) {
	for _, s := range []string{alice, alice + "@localhost:1", "/ip4/1.2.3.4/tcp/1/p2p/" + alice, "alice", "\x00", "@", "/"} {
		f.Add(s)
	}
	none := func(string) (peer.ID, bool) { return "", false }
	nobody := func() []p2p.PeerInfo { return nil }
	f.Fuzz(func(t *testing.T, s string) {
		got, err := resolve(s, none, nobody)
		if err == nil && got.id.Validate() != nil {
			t.Errorf("%q became %v", s, got)
		}
		if err != nil && status.Code(err) != codes.InvalidArgument && status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%q: %v", s, err)
		}
	})
}
