package discovery

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// A relay that this node depends on, and a peer that depends on this one, stay whatever comes.
func TestCore_RelaysAndWhomThisNodeCarriesForAreNeverLetGo(t *testing.T) {
	own, carrier, client := testID(t), testID(t), testID(t)
	o := newOne(KeeperConfig{Low: 1, High: 4, Keep: func(p peer.ID) bool { return p == own }})
	o.tied = func(p peer.ID) bool { return p == client }
	for i := range 2 { // the reserve
		o.meet(peer.ID(fmt.Sprint("reserve", i)), nil, farAddr)
	}
	for _, p := range []peer.ID{own, carrier, client} {
		o.connUp(p, 1, false)
		o.linked(p, linksTo([]ma.Multiaddr{farAddr}))
		o.identified(p, identity{member: true})
		o.pass(time.Second)
	}
	o.meet("carried", nil, viaRelay(carrier))
	o.peers["carried"].sticky = true
	for i := range 100 {
		p := peer.ID(fmt.Sprint("other", i))
		o.meet(p, nil, farAddr)
		o.pass(grace + time.Second)
		o.connDown(p, 0, closedUnknown)
	}
	for _, p := range []peer.ID{own, carrier, client} {
		if n := o.count(actClose, p); n > 0 {
			t.Errorf("%s was let go", p)
		}
	}
	if o.count(actClose, "") == 0 {
		t.Error("nobody was let go")
	}
}

func TestCore_ARelayOfAnotherNetworkStaysAndIsNoNeighbor(t *testing.T) {
	for name, cfg := range map[string]KeeperConfig{
		"no member":   {Keep: func(peer.ID) bool { return true }},
		"not allowed": {Keep: func(peer.ID) bool { return true }, Allow: func(peer.ID) bool { return false }},
	} {
		o := newOne(cfg)
		o.connUp("relay", 1, true)
		o.linked("relay", linksTo([]ma.Multiaddr{farAddr}))
		o.identified("relay", identity{member: name == "not allowed", record: []byte("r"), seq: uint64(o.now.UnixNano())})
		o.pass(time.Minute)
		if o.count(actClose, "relay") > 0 || o.neighbors > 0 || len(o.records(o.now, 10, "", Public)) > 0 {
			t.Errorf("%s: closed %d times, %d neighbors", name, o.count(actClose, "relay"), o.neighbors)
		}
		if len(o.looks("relay", 10*time.Second)) == 0 {
			t.Errorf("%s: nobody looks whether it lives", name)
		}
	}
}

// Of a lost peer the relay is mostly asked alone: where the peer was may keep silent for the whole dial.
func TestCore_TheRelayIsAskedFirstForTheLost(t *testing.T) {
	relay := testID(t)
	for name, tc := range map[string]struct {
		at   []ma.Multiaddr
		want []int // addresses of each dial
	}{
		"far and relayed":  {[]ma.Multiaddr{farAddr, viaRelay(relay)}, []int{1, 2, 1, 1, 1, 2}},
		"relayed":          {[]ma.Multiaddr{viaRelay(relay)}, []int{1, 1, 1, 1}},
		"far":              {[]ma.Multiaddr{farAddr}, []int{1, 1, 1, 1}},
		"near and relayed": {[]ma.Multiaddr{lanAddr, viaRelay(relay)}, []int{2, 2, 2, 2}},
	} {
		o := newOne(KeeperConfig{})
		o.meet("a", tc.at, farAddr)
		o.pass(time.Minute)
		o.connDown("a", 0, closedDead)
		var got []int
		for len(got) < len(tc.want) {
			o.did = nil
			o.pass(3 * time.Second)
			for _, a := range o.did {
				if a.kind == actDial {
					got = append(got, len(a.addrs))
					if len(tc.at) > 1 && tc.at[0].Equal(farAddr) && a.timeout != lostTimeout { // no round trip is known
						t.Errorf("%s: it may take %v", name, a.timeout)
					}
				}
			}
			o.dialed("a", errors.New("no answer"))
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: dialed at %v addresses, want %v", name, got, tc.want)
		}
	}
}

// What leads through this node itself is handed on and not dialed.
func TestCore_ThroughItselfANodeDialsNobody(t *testing.T) {
	self := testID(t)
	o := newOne(KeeperConfig{})
	o.self = self
	o.meet("a", []ma.Multiaddr{viaRelay(self)}, farAddr)
	o.identified("a", identity{member: true, addrs: []ma.Multiaddr{viaRelay(self)}, record: []byte("a's"), seq: uint64(o.now.UnixNano())})
	if got := o.records(o.now, 10, "", Public); len(got) != 1 {
		t.Errorf("%d records are handed on", len(got))
	}
	o.connDown("a", 0, closedDead)
	o.pass(time.Minute)
	if n := o.count(actDial, "a"); n > 0 {
		t.Errorf("dialed %d times", n)
	}
	if o.peers["a"] != nil {
		t.Error("a peer that this node cannot dial is kept")
	}
}

func TestEntry_GroupOfTheRelayed(t *testing.T) {
	relay := testID(t)
	for _, tc := range []struct {
		addrs []ma.Multiaddr
		want  string
	}{
		{[]ma.Multiaddr{farAddr, viaRelay(relay)}, "9.9.0.0/16"},
		{[]ma.Multiaddr{viaRelay(relay)}, string(relay)},
		{nil, ""},
	} {
		e := &entry{}
		for _, a := range tc.addrs {
			e.addrs = append(e.addrs, address{Multiaddr: a})
		}
		if got := e.group(); got != tc.want {
			t.Errorf("%v: group %q, want %q", tc.addrs, got, tc.want)
		}
	}
}

func TestCore_WhoIsHeardNearbyIsDialedDirectly(t *testing.T) {
	relay := testID(t)
	for name, tc := range map[string]struct {
		over ma.Multiaddr
		from Origin
		want int
	}{
		"carried, heard":      {viaRelay(relay), lanOrigin, 1},
		"carried, by hearsay": {viaRelay(relay), Origin{Source: "exchange", Scope: Private, secondhand: true}, 0},
		"direct":              {farAddr, lanOrigin, 0},
	} {
		o := newOne(KeeperConfig{})
		o.meet("a", []ma.Multiaddr{viaRelay(relay)}, tc.over)
		for range 3 { // heard again it is no news
			o.found("a", []ma.Multiaddr{lanAddr}, tc.from)
			o.pass(time.Second)
		}
		if got := o.count(actNear, "a"); got != tc.want {
			t.Errorf("%s: dialed directly %d times, want %d", name, got, tc.want)
		}
	}
	o := newOne(KeeperConfig{})
	o.meet("a", nil, viaRelay(relay))
	for i := range 100 {
		o.found("a", []ma.Multiaddr{addrOf(fmt.Sprintf("/ip4/10.0.1.%d/tcp/1", i))}, lanOrigin)
		o.pass(10 * time.Millisecond)
	}
	if got := o.count(actNear, "a"); got > 31 {
		t.Errorf("%d dials in a second", got)
	}
}

// This node's own relays are dialed by package host/reach: two dials at once make two connections of a kind.
func TestCore_OwnRelaysAreLeftToOthersForAWhile(t *testing.T) {
	own := testID(t)
	o := newOne(KeeperConfig{Keep: func(p peer.ID) bool { return p == own }})
	dials := func(d time.Duration) int {
		before := o.count(actDial, own)
		for end := o.now.Add(d); o.now.Before(end); {
			o.found(own, []ma.Multiaddr{farAddr}, Origin{Source: "join", Explicit: true})
			if o.peers[own].busy {
				o.dialed(own, errors.New("no answer"))
			}
			o.pass(100 * time.Millisecond)
		}
		return o.count(actDial, own) - before
	}
	if got := dials(ownWait - 200*time.Millisecond); got > 0 {
		t.Errorf("dialed %d times at once", got)
	}
	if got := dials(time.Minute); got < 9 || got > 17 {
		t.Errorf("dialed %d times in a minute", got)
	}
	o.meet(own, nil, farAddr)
	o.pass(time.Minute)
	o.connDown(own, 0, closedUnknown)
	if got := dials(ownWait*3/4 - 200*time.Millisecond); got > 0 {
		t.Errorf("dialed %d times right after it was lost", got)
	}
	if got := dials(2 * ownWait); got != 1 {
		t.Errorf("dialed %d times then", got)
	}
}
