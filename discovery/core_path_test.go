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

var (
	lanAddr = addrOf("/ip4/10.0.0.1/tcp/1")
	farAddr = addrOf("/ip4/9.9.9.9/udp/1/quic-v1")
)

// viaRelay is the address of whoever a relay reaches.
func viaRelay(relay peer.ID) ma.Multiaddr {
	return addrOf("/ip4/8.8.8.8/udp/1/quic-v1/p2p/" + relay.String() + "/p2p-circuit")
}

// meet connects a member over addresses, each a connection, and tells where it is.
func (o *one) meet(p peer.ID, at []ma.Multiaddr, over ...ma.Multiaddr) {
	o.connUp(p, len(over), true)
	o.linked(p, linksTo(over))
	o.identified(p, identity{member: true, addrs: at})
	o.pass(0)
}

// looks returns when peers' far connections are looked at in d, from its start.
func (o *one) looks(p peer.ID, d time.Duration) (out []time.Duration) {
	begin := o.now
	for o.now.Before(begin.Add(d)) {
		o.did = nil
		o.pass(50 * time.Millisecond)
		for _, a := range o.did {
			if a.kind == actPing && a.peer == p && a.on {
				out = append(out, o.now.Sub(begin))
			}
		}
	}
	return out
}

func TestCore_FarConnectionsInUseAreLookedAtEachSecond(t *testing.T) {
	relay := testID(t)
	for name, tc := range map[string]struct {
		over       []ma.Multiaddr
		used, kept bool
		every      time.Duration // 0: as all others
	}{
		"far":              {over: []ma.Multiaddr{farAddr}},
		"far, used":        {over: []ma.Multiaddr{farAddr}, used: true, every: liveEvery},
		"far, kept":        {over: []ma.Multiaddr{farAddr}, kept: true, every: keepEvery},
		"relayed, used":    {over: []ma.Multiaddr{viaRelay(relay)}, used: true, every: liveEvery},
		"on the link":      {over: []ma.Multiaddr{lanAddr}, used: true, kept: true},
		"on both":          {over: []ma.Multiaddr{lanAddr, farAddr}, used: true, every: liveEvery},
		"here":             {over: []ma.Multiaddr{addrOf("/ip4/127.0.0.1/tcp/1")}, used: true},
		"relayed at home":  {over: []ma.Multiaddr{addrOf("/ip4/10.0.0.9/tcp/1/p2p/" + relay.String() + "/p2p-circuit")}, used: true, every: liveEvery},
		"relayed, resting": {over: []ma.Multiaddr{viaRelay(relay)}},
	} {
		o := newOne(KeeperConfig{
			InUse: func(peer.ID) bool { return tc.used }, Keep: func(peer.ID) bool { return tc.kept },
		})
		o.meet("a", nil, tc.over...)
		got := o.looks("a", time.Minute)
		want := 0
		if tc.every > 0 {
			want = int(time.Minute / tc.every)
		}
		if len(got) < want-1 || len(got) > want {
			t.Errorf("%s: looked at %d times in a minute, want %d", name, len(got), want)
		}
	}
}

func TestCore_ACallThatBeginsIsNoticedWithinASecond(t *testing.T) {
	used := false
	o := newOne(KeeperConfig{InUse: func(peer.ID) bool { return used }})
	o.meet("a", nil, farAddr)
	o.pass(time.Minute)
	used = true
	if got := o.looks("a", 2*time.Second); len(got) == 0 || got[0] > liveEvery+50*time.Millisecond {
		t.Errorf("looked at after %v", got)
	}
}

func TestCore_SlowPathsAndBusyMachinesHaveTheirTime(t *testing.T) {
	for name, tc := range map[string]struct {
		rtt, late time.Duration
		idle      bool
		want      time.Duration
	}{
		"unknown":       {want: liveTimeout},
		"near":          {rtt: 30 * time.Millisecond, want: liveTimeout},
		"slow":          {rtt: 500 * time.Millisecond, want: 2 * time.Second},
		"out of space":  {rtt: time.Minute, want: pingTimeout},
		"busy":          {late: 2 * lateFor, want: 2 * liveTimeout},
		"nobody waits":  {idle: true, want: 2 * liveTimeout},
		"slow and idle": {rtt: time.Second, idle: true, want: pingTimeout},
	} {
		o := newOne(KeeperConfig{
			InUse: func(peer.ID) bool { return !tc.idle }, Keep: func(peer.ID) bool { return tc.idle },
		})
		o.meet("a", nil, farAddr)
		o.measured("a", tc.rtt)
		for range 2 {
			o.woken(tc.late)
		}
		o.did = nil
		o.pass(3 * time.Second)
		looked := false
		for _, a := range o.did {
			if a.kind == actPing && a.on {
				if looked = true; a.timeout != tc.want {
					t.Errorf("%s: a look waits for %v, want %v", name, a.timeout, tc.want)
				}
			}
		}
		if !looked {
			t.Errorf("%s: not looked at", name)
		}
	}
}

// The relay of a connection that is silent is looked at, and a node's own relays when a direct connection is: it may be
// the node that reaches nobody.
func TestCore_AMissedPingCastsDoubtOnRelays(t *testing.T) {
	own, carrier := testID(t), testID(t)
	o := newOne(KeeperConfig{Keep: func(p peer.ID) bool { return p == own }})
	o.meet(own, nil, farAddr)
	o.meet(carrier, nil, farAddr)
	o.meet("direct", nil, farAddr)
	o.meet("carried", nil, viaRelay(carrier))
	for _, tc := range []struct {
		p, relay peer.ID
		want     []peer.ID
	}{
		{"carried", carrier, []peer.ID{carrier}},
		{"direct", "", []peer.ID{own}},
		{own, "", nil},
		{"gone", "unknown", nil},
	} {
		o.did = nil
		o.missed(tc.p, tc.relay)
		o.pass(0)
		for _, p := range []peer.ID{own, carrier, "direct", "carried"} {
			want := 0
			if slices.Contains(tc.want, p) {
				want = 1
			}
			if got := o.count(actPing, p); got != want {
				t.Errorf("%q missed a ping: %q is looked at %d times, want %d", tc.p, p, got, want)
			}
		}
	}
}

func TestCore_TheRelayOfACallIsLookedAtEachSecond(t *testing.T) {
	relay := testID(t)
	o := newOne(KeeperConfig{InUse: func(p peer.ID) bool { return p == "a" }, Keep: func(p peer.ID) bool { return p == relay }})
	o.meet(relay, nil, farAddr)
	if got := o.looks(relay, time.Minute); len(got) > 24 {
		t.Errorf("without a call it is looked at %d times in a minute", len(got))
	}
	o.meet("a", nil, viaRelay(relay))
	if got := o.looks(relay, time.Minute); len(got) < 58 {
		t.Errorf("during a call it is looked at %d times in a minute", len(got))
	}
}

func TestCore_PathsAreTold(t *testing.T) {
	r1, r2 := testID(t), testID(t)
	o := newOne(KeeperConfig{})
	path := func(over ...ma.Multiaddr) (Path, int) {
		o.told = nil
		o.pass(time.Second)
		o.connUp("a", len(over), true)
		o.linked("a", linksTo(over))
		o.pass(0)
		n := 0
		for _, e := range o.told {
			if e.Kind == PeerPathChanged {
				n++
			}
		}
		return o.peers["a"].snapshot().Path, n
	}
	o.meet("a", nil, viaRelay(r1))
	start := o.now
	for _, tc := range []struct {
		over  []ma.Multiaddr
		relay peer.ID
		addr  ma.Multiaddr
		told  int
	}{
		{[]ma.Multiaddr{viaRelay(r1)}, r1, viaRelay(r1), 0},
		{[]ma.Multiaddr{viaRelay(r1), farAddr}, "", farAddr, 1},
		{[]ma.Multiaddr{farAddr, viaRelay(r1)}, "", farAddr, 0},
		{[]ma.Multiaddr{farAddr, lanAddr}, "", farAddr, 0},
		{[]ma.Multiaddr{lanAddr}, "", lanAddr, 0},
		{[]ma.Multiaddr{viaRelay(r2)}, r2, viaRelay(r2), 1},
		{[]ma.Multiaddr{viaRelay(r1)}, r1, viaRelay(r1), 1},
	} {
		got, told := path(tc.over...)
		if got.Relay != tc.relay || !got.Addr.Equal(tc.addr) || told != tc.told {
			t.Errorf("over %v: %+v, told %d times, want %s through %q, told %d times", tc.over, got, told, tc.addr, tc.relay, tc.told)
		}
		if told > 0 {
			start = o.now
		}
		if !got.Since.Equal(start) {
			t.Errorf("over %v: since %v, want %v", tc.over, got.Since, start)
		}
	}
	o.connDown("a", 0, closedUnknown)
	if e := o.peers["a"]; e != nil && e.snapshot().Path.Addr != nil {
		t.Errorf("who is gone is reached by %+v", e.path)
	}
	if len(o.carriers) > 0 {
		t.Errorf("relays carry %v", o.carriers)
	}
}

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

// Of a lost peer the relay is asked alone each other time: where the peer was may keep silent for the whole dial.
func TestCore_TheRelayIsAskedFirstForTheLost(t *testing.T) {
	relay := testID(t)
	for name, tc := range map[string]struct {
		at   []ma.Multiaddr
		want []int // addresses of each dial
	}{
		"far and relayed":  {[]ma.Multiaddr{farAddr, viaRelay(relay)}, []int{1, 2, 1, 2}},
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

func TestCore_ResumedLooksAtAllAndDialsAtOnce(t *testing.T) {
	o := newOne(KeeperConfig{})
	o.meet("a", []ma.Multiaddr{farAddr}, farAddr)
	o.meet("lost", []ma.Multiaddr{farAddr}, farAddr)
	o.connDown("lost", 0, closedDead)
	for range 20 {
		o.pass(10 * time.Second)
		o.dialed("lost", errors.New("no answer"))
	}
	o.did = nil
	o.resumed()
	o.pass(0)
	if o.count(actPing, "a") != 1 || o.count(actDial, "lost") != 1 {
		t.Errorf("pinged %d times, dialed %d times", o.count(actPing, "a"), o.count(actDial, "lost"))
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

func linksTo(over []ma.Multiaddr) (out []link) {
	for _, a := range over {
		out = append(out, linkTo(a))
	}
	return out
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
