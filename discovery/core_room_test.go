package discovery

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// A node that has met many in its time has room for those who come.
func TestCore_WhoComesIsNotTurnedAwayForThoseWhoAreGone(t *testing.T) {
	o := newOne(KeeperConfig{Low: 1, High: 1})
	for i := range MaxPeers + 200 {
		p := peer.ID(fmt.Sprint("p", i))
		o.connUp(p, 1, false)
		o.identified(p, identity{member: true, addrs: []ma.Multiaddr{addrOf("/ip4/10.0.0.1/tcp/1")}})
		o.connDown(p, 0, closedFull)
		o.pass(time.Millisecond)
	}
	if n := len(o.peers); n != MaxPeers {
		t.Errorf("%d are known, want %d", n, MaxPeers)
	}
	if o.peers["p0"] != nil || o.peers[peer.ID(fmt.Sprint("p", MaxPeers+199))] == nil {
		t.Error("who has been away the longest is kept in place of who was here just now")
	}
	for i := range MaxPeers + 200 {
		o.connUp(peer.ID(fmt.Sprint("client", i)), 1, false)
	}
	if n := o.count(actClose, ""); n > 0 {
		t.Errorf("%d were turned away", n)
	}
}

func TestCore_FloodsAreBounded(t *testing.T) {
	o := newOne(KeeperConfig{})
	o.found("joined", []ma.Multiaddr{addrOf("/ip4/10.0.0.9/tcp/1")}, Origin{Source: "join", Explicit: true})
	o.arrive("neighbor", false)
	for i := range 10_000 {
		o.found(peer.ID(fmt.Sprint("spoofed", i)), []ma.Multiaddr{addrOf(fmt.Sprintf("/ip4/10.1.%d.%d/tcp/1", i/250, i%250))}, lanOrigin)
	}
	if len(o.peers) != MaxPeers+1 {
		t.Errorf("%d peers known besides the neighbor, want %d", len(o.peers)-1, MaxPeers)
	}
	if o.peers["joined"] == nil || o.peers["neighbor"] == nil {
		t.Error("the flood pushed out one of use")
	}
	for range 200 {
		for p := range o.inflight {
			o.dialed(p, errors.New("no answer"))
		}
		o.pass(50 * time.Millisecond)
		if len(o.inflight) > maxDials {
			t.Fatalf("%d dials at once", len(o.inflight))
		}
	}
	if got := o.count(actDial, ""); got > 20+100+1 {
		t.Errorf("%d dials in 10 s, want at most the budget of 20 and 10 a second", got)
	}
	told := 0
	for _, e := range o.told {
		if e.Kind == PeerUnreachable {
			told++
		}
	}
	if told > 12 {
		t.Errorf("%d complaints", told)
	}
}

func TestCore_TheLotSparesMostNewcomers(t *testing.T) {
	stayed := 0
	for range 100 {
		o := newOne(KeeperConfig{Low: 5, High: 5})
		for i := range 5 {
			o.arrive(peer.ID(fmt.Sprint("p", i)), false)
		}
		o.pass(time.Minute)
		o.rng = rand.New(rand.NewPCG(uint64(stayed), rand.Uint64()))
		o.arrive("newcomer", false)
		o.pass(grace + time.Second)
		if o.peers["newcomer"].neighbor {
			stayed++
		}
	}
	if stayed < 60 {
		t.Errorf("%d of 100 newcomers stayed, want about 83", stayed)
	}
}
