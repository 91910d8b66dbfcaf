package reach

import (
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

func newID(t *testing.T) peer.ID {
	t.Helper()
	_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func addrs(texts ...string) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, s := range texts {
		out = append(out, ma.StringCast(s))
	}
	return out
}

// bench drives a core by hand.
type bench struct {
	t *testing.T
	*core
}

var begin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// newBench returns a core of a host at 192.168.1.2, behind a NAT, with as many relays at 5.0.0.1, 5.0.0.2, ….
func newBench(t *testing.T, relays int) *bench {
	t.Helper()
	var cfg Config
	for i := range relays {
		cfg.Relays = append(cfg.Relays, peer.AddrInfo{ID: newID(t), Addrs: addrs(
			fmt.Sprintf("/ip4/5.0.0.%d/tcp/9388", i+1), fmt.Sprintf("/ip4/5.0.0.%d/udp/9388/quic-v1", i+1),
		)})
	}
	b := &bench{t, newCore(newID(t), cfg, mathrand.New(mathrand.NewPCG(1, 2)))}
	b.now, b.begun = begin, begin
	b.situation([]netip.Addr{netip.MustParseAddr("192.168.1.2")}, []port{{kindQUIC, 9388}, {kindTCP, 9388}}, addrs("/ip4/192.168.1.2/tcp/9388", "/ip4/192.168.1.2/udp/9388/quic-v1"))
	return b
}

// after lets time pass and returns what the core wants then, as text.
func (b *bench) after(d time.Duration) []string {
	b.t.Helper()
	b.now = b.now.Add(d)
	b.tick()
	return b.wants()
}

// wants returns what the core wants, as text, relays by their numbers.
func (b *bench) wants() []string {
	var out []string
	for _, a := range b.out {
		who := "peer"
		for i, r := range b.relays {
			if r.id == a.peer {
				who = fmt.Sprintf("relay%d", i)
			}
		}
		switch a.kind {
		case actDial:
			out = append(out, "dial "+who+" "+a.via.String())
		case actPing:
			out = append(out, "ping "+a.conn)
		case actClose:
			out = append(out, "close "+a.conn)
		case actRetire:
			out = append(out, "retire "+a.conn)
		case actReserve:
			out = append(out, "reserve "+who)
		case actProbe:
			out = append(out, "probe "+a.addr.String())
		case actAnnounce:
			out = append(out, fmt.Sprintf("announce %s %d", a.public, len(a.addrs)))
		case actVerify:
			out = append(out, "verify")
		case actAttempt:
			out = append(out, fmt.Sprintf("attempt %d over %s", a.try, a.conn))
		}
	}
	b.out = nil
	slices.Sort(out)
	return out
}

// until lets time pass until the core wants something that begins so, and returns how long that took.
func (b *bench) until(prefix string) time.Duration {
	b.t.Helper()
	start := b.now
	for range 1000 {
		next := b.tick()
		if slices.ContainsFunc(b.wants(), func(s string) bool { return strings.HasPrefix(s, prefix) }) {
			return b.now.Sub(start)
		}
		if !next.After(b.now) {
			next = b.now.Add(time.Millisecond)
		}
		b.now = next
	}
	b.t.Fatalf("never: %s", prefix)
	return 0
}

// link has a connection to a relay come up.
func (b *bench) link(conn string, relay int, remote string) {
	b.linkUp(conn, b.relays[relay].id, ma.StringCast(remote), 9388)
}

// see has a relay say over a connection where it sees the host.
func (b *bench) see(conn string, relay int, remote, seen string) {
	b.sighted(conn, b.relays[relay].id, ma.StringCast(remote), ma.StringCast("/ip4/192.168.1.2/udp/9388/quic-v1"), ma.StringCast(seen))
}

func (b *bench) want(got []string, want ...string) {
	b.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("after %v: %s", b.now.Sub(begin), diff)
	}
}

func TestCore_MappingKind(t *testing.T) {
	for _, tc := range []struct {
		seen []string // by each relay
		want Mapping
	}{
		{nil, MappingUnknown},
		{[]string{"/ip4/7.0.0.1/udp/30000/quic-v1"}, MappingSomeNAT},
		{[]string{"/ip4/192.168.1.2/udp/9388/quic-v1"}, MappingNone},
		{[]string{"/ip4/7.0.0.1/udp/30000/quic-v1", "/ip4/7.0.0.1/udp/30000/quic-v1"}, MappingIndependent},
		{[]string{"/ip4/7.0.0.1/udp/30000/quic-v1", "/ip4/7.0.0.1/udp/30001/quic-v1"}, MappingSymmetric},
		{[]string{"/ip4/7.0.0.1/udp/30000/quic-v1", "/ip4/7.0.0.2/udp/30000/quic-v1"}, MappingSymmetric},
		{[]string{"/ip4/7.0.0.1/tcp/30000", "/ip4/7.0.0.1/tcp/30001"}, MappingUnknown},
	} {
		b := newBench(t, 2)
		for i, seen := range tc.seen {
			b.see(fmt.Sprint("c", i), i, fmt.Sprintf("/ip4/5.0.0.%d/udp/9388/quic-v1", i+1), seen)
		}
		if got := b.mapping(kindQUIC); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.seen, got, tc.want)
		}
	}
}

func TestCore_OnlyRelaysAreBelievedWhereTheHostIs(t *testing.T) {
	b := newBench(t, 0)
	stranger, carrier := newID(t), newID(t)
	for i, p := range []peer.ID{stranger, carrier} {
		b.sighted(fmt.Sprint("c", i), p, ma.StringCast("/ip4/5.0.0.1/udp/9388/quic-v1"), ma.StringCast("/ip4/192.168.1.2/udp/9388/quic-v1"), ma.StringCast("/ip4/7.0.0.1/udp/1/quic-v1"))
	}
	// Nor is one that left from another port than those that the host listens at.
	b.sighted("c3", carrier, ma.StringCast("/ip4/5.0.0.1/tcp/9388"), ma.StringCast("/ip4/192.168.1.2/tcp/5"), ma.StringCast("/ip4/7.0.0.1/tcp/2"))
	if got := b.outside(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	b.paths(newID(t), []carried{{conn: "r", relay: carrier, realm: addr.Public}}, 0)
	if diff := cmp.Diff("[/ip4/7.0.0.1/udp/1/quic-v1]", fmt.Sprint(b.outside())); diff != "" {
		t.Error(diff)
	}
}

// A peer that may be connected and carries something could otherwise keep this host from ever being reached directly.
func TestCore_WhatOthersSeeTakesNoPlaceOfWhatTheRelaysSee(t *testing.T) {
	b := newBench(t, 1)
	b.after(0)
	remote, seen := "/ip4/5.0.0.1/udp/9388/quic-v1", "/ip4/7.0.0.1/udp/30000/quic-v1"
	b.link("c1", 0, remote)
	b.see("c1", 0, remote, seen)
	for i := range 2 * maxIPs {
		liar := newID(t)
		b.sighted(fmt.Sprint("l", i), liar, ma.StringCast("/ip4/5.0.0.9/udp/1/quic-v1"), ma.StringCast("/ip4/192.168.1.2/udp/9388/quic-v1"),
			ma.StringCast(fmt.Sprintf("/ip4/6.0.0.%d/udp/1/quic-v1", i+1)))
		b.paths(newID(t), []carried{{conn: fmt.Sprint("r", i), relay: liar, realm: addr.Public}}, 0)
	}
	if got := b.offerFor(addr.Public).addrs; len(got) != maxIPs || got[0].String() != seen {
		t.Errorf("offered: %v", got)
	}
}

func TestCore_PublicByOwnAddressesOnly(t *testing.T) {
	b := newBench(t, 2)
	b.after(0)
	remote := "/ip4/5.0.0.1/udp/9388/quic-v1"
	b.link("c1", 0, remote)
	b.see("c1", 0, remote, "/ip4/7.0.0.1/udp/30000/quic-v1")
	r := b.relays[0].id
	if got := b.after(0); !slices.Contains(got, "probe /ip4/7.0.0.1/udp/30000/quic-v1") {
		t.Fatalf("%v", got)
	}
	b.probed(r, ma.StringCast("/ip4/7.0.0.1/udp/30000/quic-v1"), true, false)
	if b.public() || b.filtering != FilteringOpen || b.reachability() != network.ReachabilityPrivate {
		t.Errorf("by an address that a relay only sees: %v, %s", b.public(), b.filtering)
	}
	b.reserved(r, reservation{expires: b.now.Add(time.Hour)}, "", false)
	b.after(0)

	mapped := "/ip4/7.0.0.1/udp/9388/quic-v1" // by the router, on request
	b.situation(b.machine, b.listening, append(slices.Clone(b.addrs), ma.StringCast(mapped)))
	b.want(b.after(0), "probe "+mapped)
	if got := b.reachability(); got != network.ReachabilityUnknown {
		t.Errorf("before the answer: %s", got)
	}
	b.probed(r, ma.StringCast(mapped), false, true) // it did not try
	b.until("probe " + mapped)
	b.probed(r, ma.StringCast(mapped), true, false)
	b.want(b.after(0), "announce Public 0")
	b.relays[0].ask = b.now
	b.want(b.after(0)) // no reservation

	// Two failures in a row end it.
	b.until("probe " + mapped)
	b.probed(r, ma.StringCast(mapped), false, false)
	if !b.public() {
		t.Error("one failure ended it")
	}
	if took := b.until("probe " + mapped); took != probeDoubted {
		t.Errorf("looked again after %v", took)
	}
	b.probed(r, ma.StringCast(mapped), false, false)
	if got := b.after(0); !slices.Contains(got, "reserve relay0") || !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "announce Private") }) {
		t.Errorf("no longer public: %v", got)
	}
	// An address that is gone proves nothing any more.
	b.probed(r, ma.StringCast(mapped), true, false)
	b.situation(b.machine, b.listening, addrs("/ip4/192.168.1.2/tcp/9388"))
	b.after(0)
	if b.public() {
		t.Error("public by an address that is gone")
	}
}

func TestCore_AnAnnouncedNameMakesTheHostPublic(t *testing.T) {
	b := newBench(t, 1)
	b.after(0)
	remote := "/ip4/5.0.0.1/udp/9388/quic-v1"
	b.situation(b.machine, b.listening, append(slices.Clone(b.addrs), addrs("/dns/node.example.org/tcp/9388", "/ip6/2a00::1/tcp/9388")...))
	b.link("c1", 0, remote)
	b.see("c1", 0, remote, "/ip4/7.0.0.1/udp/30000/quic-v1")
	b.want(b.after(0), "probe /dns/node.example.org/tcp/9388", "reserve relay0")
	b.probed(b.relays[0].id, addrs("/dns/node.example.org/tcp/9388")[0], false, false)
	if got := b.reachability(); got != network.ReachabilityPrivate { // no relay can dial the other
		t.Error(got)
	}
	b.until("probe /ip4/7.0.0.1") // for what is let in
	b.probed(b.relays[0].id, addrs("/ip4/7.0.0.1/udp/30000/quic-v1")[0], false, false)
	b.until("probe /dns/node.example.org")
	b.probed(b.relays[0].id, addrs("/dns/node.example.org/tcp/9388")[0], true, false)
	if got := b.reachability(); got != network.ReachabilityPublic {
		t.Error(got)
	}
	if got := b.offerFor(addr.Public).addrs; slices.ContainsFunc(got, named) {
		t.Errorf("a name is offered: %v", got)
	}
}
