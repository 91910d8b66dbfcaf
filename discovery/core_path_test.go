package discovery

import (
	"errors"
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

func linksTo(over []ma.Multiaddr) (out []link) {
	for _, a := range over {
		out = append(out, linkTo(a))
	}
	return out
}
