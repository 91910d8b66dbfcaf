package discovery

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

func TestCore_BannedIsNotDialed(t *testing.T) {
	o := newOne(KeeperConfig{})
	o.arrive("a", true)
	o.ban("a")
	o.pass(0)
	if o.count(actClose, "a") > 0 {
		t.Error("what is connected by the time that this is done is closed; the caller has closed what was there")
	}
	o.connDown("a", 0, closedUnknown)
	o.lan("a")
	o.pass(time.Hour)
	if o.count(actDial, "a") > 0 {
		t.Error("dialed all the same")
	}
	for i := range maxBanned + 10 {
		o.ban(peer.ID(fmt.Sprint(i)))
	}
	if len(o.banned) > maxBanned {
		t.Errorf("%d are remembered as banned", len(o.banned))
	}
}

// One who is connected anew before the end of the old connection is noticed stays: somebody asked for it.
func TestCore_ConnectedAnewAfterTheUserPartedStays(t *testing.T) {
	for _, later := range []time.Duration{0, time.Millisecond} {
		o := newOne(KeeperConfig{})
		o.arrive("a", true)
		o.ban("a")
		opened := o.now.Add(later)
		o.now = opened
		o.connUp("a", 1, true)
		o.opened("a", opened)
		o.connDown("a", 1, closedUnknown)
		o.pass(time.Minute)
		if closed := o.count(actClose, "a"); (closed == 0) != (later > 0) {
			t.Errorf("closed %d times when it was opened %v after", closed, later)
		}
	}
}

// A dial that was under way when the user parted from the peer brings it back no more.
func TestCore_DialUnderWayDoesNotBringBackTheBanned(t *testing.T) {
	for name, part := range map[string]func(*one){
		"disconnect": func(o *one) { o.ban("a") }, "forget": func(o *one) { o.forget("a") },
	} {
		o := newOne(KeeperConfig{})
		o.lan("a")
		o.pass(time.Second)
		if o.count(actDial, "a") != 1 {
			t.Fatal("not dialed")
		}
		part(o)
		o.arrive("a", true)
		o.dialed("a", nil)
		o.pass(time.Second)
		if o.neighbors != 0 || o.count(actClose, "a") == 0 {
			t.Errorf("%s: %d neighbors, closed %d times", name, o.neighbors, o.count(actClose, "a"))
		}
		o.connDown("a", 0, closedUnknown)
		o.arrive("a", false) // it comes by itself
		if o.neighbors != 1 {
			t.Errorf("%s: who comes by itself is no neighbor", name)
		}
	}
}

// What identify says at first of a host that has just started may be older than its handlers.
func TestCore_WhoSaysABitLaterThatItIsAMemberStays(t *testing.T) {
	o := newOne(KeeperConfig{})
	o.connUp("a", 1, false)
	o.identified("a", identity{})
	o.pass(memberWithin - 100*time.Millisecond)
	if o.neighbors != 0 || o.count(actClose, "a") > 0 {
		t.Fatalf("at first: %d neighbors, closed %d times", o.neighbors, o.count(actClose, "a"))
	}
	o.identified("a", identity{member: true})
	o.pass(time.Minute)
	if o.neighbors != 1 || o.count(actClose, "a") > 0 {
		t.Errorf("%d neighbors, closed %d times", o.neighbors, o.count(actClose, "a"))
	}
}

func TestCore_StrangerIsLetGo(t *testing.T) {
	o := newOne(KeeperConfig{})
	o.connUp("a", 1, false)
	for range 4 { // saying so again gains it nothing
		o.identified("a", identity{})
		o.pass(memberWithin / 4)
	}
	o.pass(50 * time.Millisecond)
	if o.neighbors != 0 || o.count(actClose, "a") == 0 {
		t.Errorf("%d neighbors, closed %d times", o.neighbors, o.count(actClose, "a"))
	}
	for _, a := range o.did {
		if a.kind == actClose && a.code != network.ConnProtocolNegotiationFailed {
			t.Errorf("closed with %v", a.code)
		}
	}
}

// The close of earlier connections is no verdict on the one that comes meanwhile, once the peer has said what it is.
func TestCore_StrangerThatIsAMemberAfterAllIsNotClosedAgain(t *testing.T) {
	o := newOne(KeeperConfig{})
	o.connUp("a", 1, false)
	o.identified("a", identity{})
	o.pass(memberWithin)
	closed := o.count(actClose, "a")
	o.connUp("a", 2, false)
	o.connDown("a", 1, closedUnknown)
	o.identified("a", identity{member: true})
	o.pass(time.Minute)
	if o.neighbors != 1 || o.count(actClose, "a") != closed || closed == 0 {
		t.Errorf("%d neighbors, closed %d times, then %d times", o.neighbors, closed, o.count(actClose, "a")-closed)
	}
}

func TestCore_WrongPeerLosesTheAddress(t *testing.T) {
	o := newOne(KeeperConfig{})
	o.lan("a")
	o.pass(time.Second)
	o.dialed("a", &wrongPeerError{want: "a", got: "b", addrs: []ma.Multiaddr{addrOf("/ip4/10.0.0.1/tcp/1")}})
	if o.peers["a"] != nil {
		t.Error("a peer of which no address is left is still known")
	}
}

// Who answers at a port over TCP answers there over QUIC, whatever that dial came to.
func TestCore_WrongPeerLosesThePlace(t *testing.T) {
	o := newOne(KeeperConfig{})
	place := []ma.Multiaddr{addrOf("/ip4/10.0.0.1/tcp/1"), addrOf("/ip4/10.0.0.1/udp/1/quic-v1")}
	o.found("a", append(place, addrOf("/ip4/10.0.0.2/tcp/1")), lanOrigin)
	o.pass(time.Second)
	o.dialed("a", &wrongPeerError{want: "a", got: "b", addrs: place[:1]})
	if e := o.peers["a"]; e == nil || len(e.addrs) != 1 || !e.addrs[0].Equal(addrOf("/ip4/10.0.0.2/tcp/1")) {
		t.Errorf("left is %+v", e)
	}
}

// TCP alone is tried first; QUIC too where TCP found silence, and seldom where it was refused.
func TestCore_QUICIsTriedWhereTCPIsSilent(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want []bool
	}{
		"silent":  {errors.New("no answer"), []bool{false, true, true, true, true}},
		"refused": {&refusedError{"connection refused"}, []bool{false, false, false, true, false}},
	} {
		o := newOne(KeeperConfig{})
		o.lan("a")
		var got []bool
		for len(got) < len(tc.want) {
			o.did = nil
			o.pass(time.Minute)
			for _, a := range o.did {
				if a.kind == actDial {
					got = append(got, a.on)
				}
			}
			o.dialed("a", tc.err)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
