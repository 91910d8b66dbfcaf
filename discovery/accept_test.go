package discovery

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"pgregory.net/rapid"

	"github.com/lynn9388/p2p/internal/addr"
)

func TestOrigin_Accepts(t *testing.T) {
	const (
		loop, loop6 = "/ip4/127.0.0.1/tcp/1", "/ip6/::1/udp/1/quic-v1"
		priv, link  = "/ip4/192.168.1.2/tcp/1", "/ip6zone/eth0/ip6/fe80::1/tcp/1"
		pub         = "/ip4/9.9.9.9/udp/1/quic-v1"
	)
	never := []string{
		"/ip4/169.254.169.254/tcp/80", "/ip6/fd00:ec2::254/tcp/80", "/ip4/224.0.0.1/tcp/1", "/ip6/ff02::1/tcp/1",
		"/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1", "/ip4/255.255.255.255/tcp/1", "/dns4/example.com/tcp/1", "/ip4/9.9.9.9",
		"/ip4/9.9.9.9/tcp/0", "/ip4/9.9.9.9/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit",
		"/ip6/::ffff:169.254.169.254/tcp/80",
	}
	near := func(ip netip.Addr) bool { return ip == netip.MustParseAddr("9.9.9.8") }
	for _, tc := range []struct {
		name   string
		origin Origin
		yes    []string
		no     []string
	}{
		{"public", Origin{Scope: Public}, []string{pub}, []string{priv, link, loop, loop6}},
		{"zero", Origin{}, []string{pub}, []string{priv, link, loop, loop6}},
		{"private", Origin{Scope: Private}, []string{pub, priv, link}, []string{loop, loop6}},
		{"loopback", Origin{Scope: Loopback}, []string{pub, priv, link, loop, loop6}, nil},
		{"explicit", Origin{Explicit: true}, []string{pub, priv, link, loop, loop6}, nil},
		{"of the link", Origin{Scope: Private, onLink: near}, []string{priv, link, "/ip4/9.9.9.8/tcp/1"}, []string{pub, loop, loop6}},
		{"explicit, beyond the link", Origin{Explicit: true, onLink: near}, []string{pub, priv, link, loop, loop6}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, s := range tc.yes {
				if !tc.origin.accepts(addrOf(s)) {
					t.Errorf("%s was refused", s)
				}
			}
			for _, s := range append(tc.no, never...) {
				if tc.origin.accepts(addrOf(s)) {
					t.Errorf("%s was accepted", s)
				}
			}
		})
	}
}

func TestAccepted_CountsAndOtherPeers(t *testing.T) {
	me, other := testID(t), testID(t)
	var addrs []ma.Multiaddr
	for i := range 10_000 {
		addrs = append(addrs, addrOf(fmt.Sprintf("/ip4/9.9.%d.%d/tcp/1", i/250, i%250+1)))
	}
	if got := len(accepted(me, addrs, Origin{})); got != MaxAddrs {
		t.Errorf("%d addresses accepted, want %d", got, MaxAddrs)
	}
	twice := []ma.Multiaddr{
		addrOf("/ip4/9.9.9.9/tcp/1"), addrOf("/ip4/9.9.9.9/tcp/1/p2p/" + me.String()),
		addrOf("/ip4/9.9.9.9/tcp/2/p2p/" + other.String()), nil,
	}
	got := accepted(me, twice, Origin{})
	if len(got) != 1 || !got[0].Equal(twice[0]) {
		t.Errorf("accepted %v, want %v once", got, twice[0])
	}
}

// A name in an address may be any bytes.
func TestAccepted_NamesAreNames(t *testing.T) {
	for name, want := range map[string]bool{"relay.example.org": true, "a\xffb": false, "a\x1b[2Jb": false} {
		a, err := ma.NewMultiaddr("/ip4/9.9.9.9/tcp/443/tls/sni/" + name + "/ws")
		if err != nil {
			t.Fatal(err)
		}
		if got := accepted(testID(t), []ma.Multiaddr{a}, Origin{}); (len(got) == 1) != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestOrigin_NeverNarrower(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ip := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "ip")
		a := addrOf(fmt.Sprintf("/ip4/%d.%d.%d.%d/tcp/9", ip[0], ip[1], ip[2], ip[3]))
		scope := rapid.SampledFrom([]Scope{addr.Unusable, Loopback, Private, Public}).Draw(t, "scope")
		o := Origin{Scope: scope}
		want := addr.ScopeOf(a) != addr.Unusable && addr.ScopeOf(a) >= max(scope, Loopback) && (scope != addr.Unusable || addr.ScopeOf(a) == Public)
		if o.accepts(a) != want {
			t.Fatalf("%v from %v: accepted is %v", a, scope, !want)
		}
	})
}

func TestConnScope(t *testing.T) {
	for s, want := range map[string]Scope{
		"/ip4/127.0.0.1/tcp/1": Loopback, "/ip4/10.0.0.1/tcp/1": Private, "/ip4/9.9.9.9/tcp/1": Public, "/dns4/localhost/tcp/1": Public,
		"/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit": Public,
	} {
		if got := connScope(addrOf(s)); got != want {
			t.Errorf("connScope(%s) = %v, want %v", s, got, want)
		}
	}
	if got := connScope(nil); got != Public {
		t.Errorf("connScope(nil) = %v", got)
	}
}

func TestOriginOf(t *testing.T) {
	if o := OriginOf(NewBootstrap(BootstrapConfig{})); !o.Explicit || o.Source != "join" {
		t.Errorf("bootstrap: %+v", o)
	}
	if o := OriginOf(NewExchange(nil, nil)); o.Explicit || o.Scope != Private || o.Source != "exchange" {
		t.Errorf("a source that says nothing: %+v", o)
	}
}

func testID(tb testing.TB) peer.ID {
	tb.Helper()
	id, err := peer.IDFromPrivateKey(testKey(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return id
}
