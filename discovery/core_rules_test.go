package discovery

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"pgregory.net/rapid"
)

// one is a core alone, with what it wanted done.
type one struct {
	*core
	did  []action
	told []Event
}

func newOne(cfg KeeperConfig) *one {
	o := &one{core: newCore("self", cfg, testRand())}
	o.now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return o
}

// pass lets d go by, in steps.
func (o *one) pass(d time.Duration) {
	for end := o.now.Add(d); ; {
		o.tick()
		o.did, o.told = append(o.did, o.out...), append(o.told, o.events...)
		o.out, o.events = nil, nil
		if !o.now.Before(end) {
			return
		}
		o.now = o.now.Add(min(50*time.Millisecond, end.Sub(o.now)))
	}
}

func (o *one) count(kind actionKind, p peer.ID) int {
	n := 0
	for _, a := range o.did {
		if a.kind == kind && (p == "" || a.peer == p) {
			n++
		}
	}
	return n
}

// protection is what the connection manager was told of p.
func (o *one) protection(p peer.ID) (on []bool) {
	for _, a := range o.did {
		if a.kind == actProtect && a.peer == p {
			on = append(on, a.on)
		}
	}
	return on
}

func (o *one) arrive(p peer.ID, outbound bool) {
	o.connUp(p, 1, outbound)
	o.identified(p, identity{member: true, addrs: []ma.Multiaddr{addrOf("/ip4/10.0.0.1/tcp/1")}})
}

func (o *one) lan(p peer.ID) {
	o.found(p, []ma.Multiaddr{addrOf("/ip4/10.0.0.1/tcp/1")}, lanOrigin)
}

func TestCore_OneOverTheMarkHasItsGrace(t *testing.T) {
	o := newOne(KeeperConfig{Low: 3, High: 3})
	for i := range 4 {
		o.arrive(peer.ID(fmt.Sprint("p", i)), false)
		o.pass(0)
	}
	o.pass(grace - 100*time.Millisecond)
	if o.neighbors != 3 || o.count(actClose, "") != 0 {
		t.Fatalf("%d neighbors, %d closed in the grace", o.neighbors, o.count(actClose, ""))
	}
	o.pass(200 * time.Millisecond)
	if o.neighbors != 3 || o.count(actClose, "") != 1 {
		t.Fatalf("%d neighbors, %d closed after the grace", o.neighbors, o.count(actClose, ""))
	}
	for _, a := range o.did {
		if a.kind == actClose && a.code != network.ConnGarbageCollected {
			t.Errorf("closed with code %v", a.code)
		}
	}
}

func TestCore_TheUsedTheNamedAndTheReserveStay(t *testing.T) {
	used := peer.ID("used")
	o := newOne(KeeperConfig{Low: 1, High: 4, InUse: func(p peer.ID) bool { return p == used }})
	o.arrive("first", true)
	o.pass(time.Second)
	o.arrive("second", true)
	o.arrive(used, false)
	o.arrive("named", false)
	o.peers["named"].sticky = true
	o.pass(10 * time.Second)
	for i := range 200 {
		p := peer.ID(fmt.Sprint("attacker", i))
		o.arrive(p, false)
		o.pass(grace + time.Second)
		o.connDown(p, 0, closedUnknown)
		o.pass(0)
	}
	for _, p := range []peer.ID{"first", "second", used, "named"} {
		if !o.peers[p].neighbor || o.count(actClose, p) > 0 {
			t.Errorf("%s was let go", p)
		}
	}
	if got := o.count(actClose, ""); got < 200 {
		t.Errorf("%d closed, want one for each of 200", got)
	}
}

func TestCore_OneThatIsUsedOverTheMarkStaysConnected(t *testing.T) {
	inUse := true
	o := newOne(KeeperConfig{Low: 1, High: 1, InUse: func(p peer.ID) bool { return p == "b" && inUse }})
	o.arrive("a", true) // the reserve
	o.arrive("b", false)
	o.pass(time.Minute)
	if o.count(actClose, "") > 0 {
		t.Fatal("a connection with calls was closed")
	}
	if got := o.protection("b"); !slices.Equal(got, []bool{true}) {
		t.Errorf("protected from the connection manager: %v", got)
	}
	inUse = false
	o.pass(time.Second)
	if o.count(actClose, "b") == 0 {
		t.Error("it is kept without use")
	}
	o.connDown("b", 0, closedUnknown)
	o.pass(0)
	if got := o.protection("b"); !slices.Equal(got, []bool{true, false}) {
		t.Errorf("protected from the connection manager: %v", got)
	}
}

// Those who are forgotten, and more than so many who call, are not kept from the connection manager.
func TestCore_GuestsAreBoundedAndForgotten(t *testing.T) {
	o := newOne(KeeperConfig{Low: 1, High: 1, InUse: func(peer.ID) bool { return true }})
	o.arrive("a", true)
	o.arrive("b", false)
	o.pass(time.Minute)
	o.forget("b")
	o.pass(0)
	if got := o.protection("b"); !slices.Equal(got, []bool{true, false}) {
		t.Errorf("one that was forgotten: %v", got)
	}
	for i := range maxGuests + 10 {
		o.arrive(peer.ID(fmt.Sprint("caller", i)), false)
	}
	o.pass(time.Minute)
	if o.protected != maxGuests+1 || o.count(actClose, "") > 0 {
		t.Errorf("%d are protected, want the neighbor and %d; %d were closed", o.protected, maxGuests, o.count(actClose, ""))
	}
	for i := range maxGuests + 10 {
		o.connDown(peer.ID(fmt.Sprint("caller", i)), 0, closedUnknown)
	}
	if o.protected != 1 {
		t.Errorf("%d are protected when all have gone", o.protected)
	}
}

// Who comes by itself and leaves soon, to make room, had something to ask: that says nothing about how full it is.
func TestCore_AVisitIsNoRefusal(t *testing.T) {
	for _, tc := range []struct {
		outbound bool
		lasted   time.Duration
		full     int
	}{{false, time.Second, 0}, {false, steady, 1}, {true, time.Second, 3}} {
		o := newOne(KeeperConfig{})
		for range 3 {
			o.arrive("a", tc.outbound)
			o.pass(tc.lasted)
			o.connDown("a", 0, closedFull)
		}
		if got := o.peers["a"].full; got != tc.full {
			t.Errorf("%+v: it let this node go %d times in a row", tc, got)
		}
	}
}

func TestCore_WhoLetsUsGoIsNotRedialedSoon(t *testing.T) {
	o := newOne(KeeperConfig{})
	o.lan("a")
	o.pass(time.Second)
	o.arrive("a", true)
	o.dialed("a", nil)
	o.pass(time.Second)
	dials := o.count(actDial, "a")
	o.connDown("a", 0, closedFull)
	o.pass(fullBase*3/4 - time.Second)
	if got := o.count(actDial, "a"); got != dials {
		t.Errorf("dialed %d times more", got-dials)
	}
	o.pass(fullBase)
	if got := o.count(actDial, "a"); got != dials+1 {
		t.Errorf("dialed %d times more, want once", got-dials)
	}
}

func TestCore_LostIsRedialedWhateverTheMarks(t *testing.T) {
	o := newOne(KeeperConfig{Low: 1, High: 1})
	o.arrive("lost", true)
	o.pass(0)
	o.pass(time.Minute)
	o.connDown("lost", 0, closedUnknown)
	o.arrive("other", false)
	o.pass(time.Second)
	if o.count(actDial, "lost") == 0 {
		t.Fatal("a lost neighbor was not redialed")
	}
	// Each dial fails: how long between them?
	var gaps []time.Duration
	last := o.now
	for range 2000 {
		if o.peers["lost"].busy {
			o.dialed("lost", errors.New("no answer"))
		}
		before := o.count(actDial, "lost")
		o.pass(50 * time.Millisecond)
		if o.count(actDial, "lost") > before {
			gaps = append(gaps, o.now.Sub(last))
			last = o.now
		}
	}
	for _, g := range gaps {
		if g > 2*time.Second {
			t.Errorf("a gap of %v in the first minutes", g)
		}
	}
	o.now = o.peers["lost"].lost.Add(time.Hour)
	if got := o.backoff(o.peers["lost"]); got < redialFar*3/4 || got > redialFar*5/4 {
		t.Errorf("after an hour the wait is %v", got)
	}
}

func TestCore_StrangersAreForgotten(t *testing.T) {
	o := newOne(KeeperConfig{})
	o.connUp("a", 1, false)
	o.identified("a", identity{member: true, record: []byte("r"), seq: uint64(o.now.UnixNano()), addrs: []ma.Multiaddr{addrOf("/ip4/10.0.0.1/tcp/1")}})
	o.pass(0)
	o.identified("a", identity{member: false}) // it withdrew its protocol
	o.pass(0)
	if o.neighbors != 0 || o.peers["a"].record != nil || o.count(actClose, "a") == 0 {
		t.Errorf("%d neighbors, record %q, closed %d times", o.neighbors, o.peers["a"].record, o.count(actClose, "a"))
	}
	if len(o.records(o.now, 10, "", Private)) != 0 {
		t.Error("its record is handed on")
	}
}

func TestCore_SilentConnectionsAreClosed(t *testing.T) {
	o := newOne(KeeperConfig{})
	o.connUp("a", 1, false)
	o.pass(identifyWithin - time.Second)
	if o.count(actClose, "a") > 0 {
		t.Fatal("closed too early")
	}
	o.pass(2 * time.Second)
	if o.count(actClose, "a") == 0 {
		t.Error("a peer that does not identify itself is kept")
	}
}

func TestCore_FoundElsewhereDoubtsTheConnection(t *testing.T) {
	o := newOne(KeeperConfig{})
	o.arrive("a", true)
	o.pass(0)
	before := o.count(actPing, "a")
	o.found("a", []ma.Multiaddr{addrOf("/ip4/10.0.0.77/tcp/1")}, lanOrigin)
	o.pass(0)
	if o.count(actPing, "a") != before+1 {
		t.Error("the connection was not looked at")
	}
}

// The counts are right and the marks are kept whatever happens.
func TestCore_Invariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		used := make(map[peer.ID]bool)
		o := newOne(KeeperConfig{
			Low: 2, High: 3, InUse: func(p peer.ID) bool { return used[p] }, Allow: func(p peer.ID) bool { return p != "p9" },
		})
		peers := rapid.Map(rapid.IntRange(0, 9), func(i int) peer.ID { return peer.ID(fmt.Sprint("p", i)) })
		t.Repeat(map[string]func(*rapid.T){
			"found": func(t *rapid.T) { o.lan(peers.Draw(t, "p")) },
			"up": func(t *rapid.T) {
				o.connUp(peers.Draw(t, "p"), rapid.IntRange(1, 2).Draw(t, "n"), rapid.Bool().Draw(t, "out"))
			},
			"down": func(t *rapid.T) {
				o.connDown(peers.Draw(t, "p"), rapid.IntRange(0, 1).Draw(t, "n"), closeReason(rapid.IntRange(0, 5).Draw(t, "why")))
			},
			"identify": func(t *rapid.T) { o.identified(peers.Draw(t, "p"), identity{member: rapid.Bool().Draw(t, "member")}) },
			"dialed": func(t *rapid.T) {
				p := peers.Draw(t, "p")
				if _, ok := o.inflight[p]; ok {
					o.dialed(p, errors.New("refused"))
				}
			},
			"ban":    func(t *rapid.T) { o.ban(peers.Draw(t, "p")) },
			"forget": func(t *rapid.T) { o.forget(peers.Draw(t, "p")) },
			"use":    func(t *rapid.T) { p := peers.Draw(t, "p"); used[p] = !used[p] },
			"time":   func(t *rapid.T) { o.pass(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond) },
			"hurry":  func(*rapid.T) { o.hurry() },
			"": func(t *rapid.T) {
				n, sticky, connected := 0, 0, 0
				for p, e := range o.peers {
					if e.conns > 0 {
						connected++
					}
					if e.neighbor {
						n++
						if e.conns == 0 || !e.member || p == "p9" {
							t.Fatalf("%s is a neighbor: %+v", p, e)
						}
						if e.sticky {
							sticky++
						}
					}
					if _, ok := o.inflight[p]; e.busy && !ok {
						t.Fatalf("%s is dialed by nobody", p)
					}
				}
				if n != o.neighbors || n > 3+sticky {
					t.Fatalf("%d neighbors, counted %d", n, o.neighbors)
				}
				if len(o.inflight) > maxDials {
					t.Fatalf("%d dials", len(o.inflight))
				}
				if connected != o.core.connected {
					t.Fatalf("%d are connected, counted %d", connected, o.core.connected)
				}
			},
		})
	})
}

func TestCapped(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(-5, 1000).Draw(t, "n")
		d := capped(time.Second, n, time.Minute)
		if d < time.Second || d > time.Minute || capped(time.Second, n+1, time.Minute) < d {
			t.Fatalf("capped(1s, %d, 1m) = %v", n, d)
		}
	})
}

func TestUnreachable_SaysBothWays(t *testing.T) {
	o := newOne(KeeperConfig{})
	o.myPorts = func() string { return "9400" }
	o.found("a", []ma.Multiaddr{addrOf("/ip4/10.0.0.1/tcp/9388"), addrOf("/ip4/10.0.0.1/udp/9388/quic-v1")}, lanOrigin)
	got := o.unreachable(o.peers["a"], errors.New("no answer within 3s")).Error()
	for _, want := range []string{"10.0.0.1:9388 but", "port 9388 in the firewall of that machine", "port 9400 here", "no answer within 3s"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
}

func TestCore_ABusyMachineDialsFewerAtOnce(t *testing.T) {
	underWay := func(late time.Duration) int {
		o := newOne(KeeperConfig{})
		for range 4 {
			o.woken(late)
		}
		for i := range 2 * maxDials {
			o.lan(peer.ID(fmt.Sprint("p", i)))
		}
		o.pass(politeness) // "self" is the greater ID, and waits
		return len(o.inflight)
	}
	if got := underWay(0); got != maxDials {
		t.Errorf("%d dials under way on an idle machine, want %d", got, maxDials)
	}
	if got := underWay(2 * lateFor); got != 1 {
		t.Errorf("%d dials under way on a machine whose timers are late, want 1", got)
	}
}

// A peer whose address changes is heard of at the new one before its host has made a new record of itself, which takes
// libp2p up to 5 s. What it says meanwhile on a new connection is no newer than what it said before.
func TestCore_WhatAPeerSaysAgainTakesNoNewerAddressAway(t *testing.T) {
	o := newOne(KeeperConfig{})
	before, after := addrOf("/ip4/10.0.0.1/tcp/1"), addrOf("/ip4/10.0.0.2/tcp/1")
	old := identity{member: true, addrs: []ma.Multiaddr{before}, record: []byte("old"), seq: 1}
	o.connUp("a", 1, false)
	o.identified("a", old)
	o.pass(time.Minute)
	o.found("a", []ma.Multiaddr{after}, lanOrigin)
	check := func(when string, want ...ma.Multiaddr) {
		t.Helper()
		if got := o.peers["a"].multiaddrs(); !slices.EqualFunc(got, want, ma.Multiaddr.Equal) {
			t.Errorf("%s: it is at %v, want %v", when, got, want)
		}
	}
	check("heard of", after, before)
	o.connUp("a", 2, false)
	o.identified("a", old)
	check("on its new connection", before, after)
	o.connDown("a", 0, closedUnknown)
	o.connUp("a", 1, false)
	o.identified("a", old)
	check("on the one after", before, after)
	o.identified("a", identity{member: true, addrs: []ma.Multiaddr{after}, record: []byte("new"), seq: 2})
	check("with its new record", after)
	o.identified("a", identity{member: true, addrs: []ma.Multiaddr{before}})
	check("without a record", before)
	o.found("a", []ma.Multiaddr{after}, lanOrigin)
	o.pass(recordWithin + time.Second)
	o.identified("a", identity{member: true, addrs: []ma.Multiaddr{before}, record: []byte("new"), seq: 2})
	check("when it has had time for a new record", before)
}
