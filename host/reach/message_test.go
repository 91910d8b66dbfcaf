package reach

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host/reach/internal/wire"
	"github.com/lynn9388/p2p/internal/addr"
)

// both is the two ends of a stream of which only one writes.
type both struct {
	io.Reader
	io.Writer
}

func TestMessages_WhatIsSentIsRead(t *testing.T) {
	var b bytes.Buffer
	ch := newChannel(both{&b, &b})
	want := offer{
		addrs:  addrs("/ip4/7.0.0.1/tcp/1", "/ip6/2a00::1/udp/2/quic-v1"),
		nearby: addrs("/ip4/192.168.1.2/tcp/9388"), public: true, udp: MappingSymmetric, tcp: MappingIndependent,
		refusal: wire.Refusal_REFUSAL_BUSY,
	}
	if err := ch.send(want.wire()); err != nil {
		t.Fatal(err)
	}
	if err := ch.send(&wire.Start{Client: true, Nearby: toBytes(want.nearby)}); err != nil {
		t.Fatal(err)
	}
	got, err := ch.readOffer()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(got)); diff != "" {
		t.Error(diff)
	}
	if role, near, err := ch.readStart(); err != nil || role != RoleClient || len(near) != 1 {
		t.Errorf("%s, %v, %v", role, near, err)
	}
}

func TestMessages_AreBounded(t *testing.T) {
	nine := addrs()
	for i := range maxAddrs + 1 {
		nine = append(nine, ma.StringCast(fmt.Sprintf("/ip4/7.0.0.1/tcp/%d", i+1)))
	}
	for name, m := range map[string]offer{"addresses": {addrs: nine}, "nearby": {nearby: nine}} {
		var b bytes.Buffer
		ch := newChannel(both{&b, &b})
		if err := ch.send(m.wire()); err != nil {
			t.Fatal(err)
		}
		if _, err := ch.readOffer(); err == nil || !strings.Contains(err.Error(), "more than 8") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The largest that is sent fits.
	long := addrs()
	for i := range maxAddrs {
		long = append(long, ma.StringCast(fmt.Sprintf("/ip6/2a00:1111:2222:3333:4444:5555:6666:%x/udp/65535/quic-v1", i+1)))
	}
	var b bytes.Buffer
	ch := newChannel(both{&b, &b})
	if err := ch.send(offer{addrs: long, nearby: long, public: true, udp: MappingSymmetric, tcp: MappingSymmetric}.wire()); err != nil {
		t.Fatal(err)
	}
	if b.Len() > maxMessage {
		t.Errorf("%d bytes", b.Len())
	}
	if got, err := ch.readOffer(); err != nil || len(got.addrs) != maxAddrs || len(got.nearby) != maxAddrs {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := newChannel(both{strings.NewReader("\xff\xff\x7f"), nil}).readOffer(); err == nil {
		t.Error("a message of 2 MiB is read")
	}
}

func FuzzMessages(f *testing.F) {
	for _, o := range []offer{
		{},
		{addrs: addrs("/ip4/7.0.0.1/tcp/1"), nearby: addrs("/ip4/192.168.1.2/udp/9388/quic-v1"), public: true, udp: MappingSymmetric},
		{refusal: wire.Refusal_REFUSAL_TOO_OFTEN},
		{addrs: addrs("/dns4/x/tcp/1/ws", "/p2p-circuit", "/ip6zone/a/ip6/fe80::1/tcp/1")},
	} {
		var b bytes.Buffer
		if err := newChannel(both{nil, &b}).send(o.wire()); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	own := addrs("/ip4/7.0.0.1/tcp/1")
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _, _ = newChannel(both{bytes.NewReader(in), nil}).readStart()
		o, err := newChannel(both{bytes.NewReader(in), nil}).readOffer()
		if err != nil {
			return
		}
		for _, realm := range []addr.Scope{addr.Loopback, addr.Private, addr.Public} {
			got := pick(o.addrs, realm, own)
			if len(got) > maxAddrs {
				t.Fatalf("%d addresses", len(got))
			}
			for _, a := range got {
				if kindOf(a) != kindTCP && kindOf(a) != kindQUIC || portOf(a) == 0 || addr.ScopeOf(a) < realm || addr.ScopeOf(a) == addr.Unusable || a.Equal(own[0]) {
					t.Errorf("%s would be dialed", a)
				}
			}
		}
		ex := exchanged{mine: offer{addrs: own}, theirs: o}
		ex.accept(addr.Public, own)
		_ = explain(ex, nil)
		_ = roleOf(ex.mine, ex.theirs, 0)
	})
}

func TestPick_WhatAPeerMayHaveDialed(t *testing.T) {
	own := addrs("/ip4/7.0.0.9/tcp/9388")
	for _, tc := range []struct {
		realm addr.Scope
		in    string
		want  bool
	}{
		{addr.Public, "/ip4/7.0.0.1/tcp/1", true},
		{addr.Public, "/ip4/7.0.0.1/udp/1/quic-v1", true},
		{addr.Public, "/ip6/2a00::1/tcp/1", true},
		{addr.Public, "/ip4/192.168.1.1/tcp/1", false},
		{addr.Private, "/ip4/192.168.1.1/tcp/1", true},
		{addr.Private, "/ip4/127.0.0.1/tcp/1", false},
		{addr.Loopback, "/ip4/127.0.0.1/tcp/1", true},
		{addr.Loopback, "/ip4/169.254.169.254/tcp/80", false},
		{addr.Private, "/ip4/169.254.1.1/tcp/80", false},
		{addr.Loopback, "/ip6/fe80::1/tcp/80", false},
		{addr.Loopback, "/ip4/224.0.0.1/udp/1/quic-v1", false},
		{addr.Loopback, "/ip4/255.255.255.255/udp/1/quic-v1", false},
		{addr.Loopback, "/ip4/0.0.0.0/tcp/1", false},
		{addr.Loopback, "/ip4/7.0.0.1/tcp/0", false},
		{addr.Loopback, "/ip4/7.0.0.1/udp/1", false},
		{addr.Loopback, "/ip4/7.0.0.1/tcp/1/ws", false},
		{addr.Loopback, "/dns4/example.org/tcp/1", false},
		{addr.Loopback, "/ip4/7.0.0.1/tcp/1/p2p/12D3KooWJe5KK1ARS4qm4z7GvBrdSDBN7Qc97bhokcVk1XuiMd5s/p2p-circuit", false},
		{addr.Public, "/ip4/7.0.0.9/tcp/9388", false}, // this host's own
	} {
		if got := len(pick(addrs(tc.in), tc.realm, own)) == 1; got != tc.want {
			t.Errorf("%s through a relay that is %s: %v", tc.in, tc.realm, got)
		}
	}
	many := addrs()
	for i := range 20 {
		many = append(many, ma.StringCast(fmt.Sprintf("/ip4/7.0.1.%d/tcp/1", i)))
	}
	if got := pick(many, addr.Public, nil); len(got) != maxIPs {
		t.Errorf("%d hosts", len(got))
	}
	if got := pick(append(addrs("/ip4/7.0.0.1/tcp/1"), addrs("/ip4/7.0.0.1/tcp/1")...), addr.Public, nil); len(got) != 1 {
		t.Errorf("one address %d times", len(got))
	}
}

func TestRoleOf(t *testing.T) {
	a := addrs("/ip4/7.0.0.1/tcp/1")
	plain, sym, public, none := offer{addrs: a}, offer{addrs: a, udp: MappingSymmetric}, offer{addrs: a, public: true}, offer{}
	for _, tc := range []struct {
		mine, theirs offer
		even, odd    Role
	}{
		{plain, plain, RoleClient, RoleServer},
		{sym, plain, RoleClient, RoleClient},
		{plain, sym, RoleServer, RoleServer},
		{sym, sym, RoleClient, RoleServer},
		{plain, public, RoleClient, RoleClient},
		{public, plain, RoleServer, RoleServer},
		{public, sym, RoleServer, RoleServer},
		{none, plain, RoleClient, RoleClient},
		{sym, none, RoleServer, RoleServer},
		{offer{addrs: a, udp: MappingIndependent, tcp: MappingSymmetric}, plain, RoleClient, RoleServer},
		{offer{addrs: a, tcp: MappingSymmetric}, plain, RoleClient, RoleClient},
	} {
		if even, odd := roleOf(tc.mine, tc.theirs, 0), roleOf(tc.mine, tc.theirs, 1); even != tc.even || odd != tc.odd {
			t.Errorf("%+v and %+v: %s, then %s", tc.mine, tc.theirs, even, odd)
		}
	}
}

func TestSameNAT(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"/ip4/7.0.0.1/tcp/1", "/ip4/7.0.0.1/udp/2/quic-v1", true},
		{"/ip4/7.0.0.1/tcp/1", "/ip4/7.0.0.2/tcp/1", false},
		{"/dns4/x/tcp/1", "/dns4/x/tcp/1", false},
	} {
		if got := sameNAT(addrs(tc.a), addrs(tc.b)); got != tc.want {
			t.Errorf("%s and %s: %v", tc.a, tc.b, got)
		}
	}
	// Of nearby addresses nothing is taken from one who is elsewhere.
	ex := exchanged{mine: offer{addrs: addrs("/ip4/7.0.0.1/tcp/1")}, theirs: offer{addrs: addrs("/ip4/7.0.0.2/tcp/1"), nearby: addrs("/ip4/192.168.1.1/tcp/80")}}
	if ex.accept(addr.Public, nil) || len(ex.theirs.nearby) != 0 {
		t.Errorf("%+v", ex.theirs)
	}
}

func TestThroughRelay(t *testing.T) {
	const id = "12D3KooWJe5KK1ARS4qm4z7GvBrdSDBN7Qc97bhokcVk1XuiMd5s"
	for _, tc := range []struct {
		in    string
		realm addr.Scope
		ok    bool
	}{
		{"/ip4/7.0.0.1/tcp/1/p2p/" + id + "/p2p-circuit", addr.Public, true},
		{"/ip4/10.0.0.1/udp/1/quic-v1/p2p/" + id + "/p2p-circuit", addr.Private, true},
		{"/ip4/127.0.0.1/tcp/1/p2p/" + id + "/p2p-circuit", addr.Loopback, true},
		{"/dns4/example.org/tcp/443/ws/p2p/" + id + "/p2p-circuit", addr.Public, true},
		{"/ip4/7.0.0.1/tcp/1", addr.Unusable, false},
	} {
		relay, realm, ok := throughRelay(ma.StringCast(tc.in))
		if realm != tc.realm || ok != tc.ok || ok && relay.String() != id {
			t.Errorf("%s: %s, %s, %v", tc.in, relay, realm, ok)
		}
	}
}
