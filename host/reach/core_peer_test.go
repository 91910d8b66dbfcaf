package reach

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host/reach/internal/wire"
	"github.com/lynn9388/p2p/internal/addr"
)

// relayedPeer has a peer be connected through a relay.
func (b *bench) relayedPeer(p peer.ID, out bool) {
	b.paths(p, []carried{{conn: "r1", relay: b.relays[0].id, realm: addr.Public, out: out}}, 0)
}

func TestCore_AttemptsAreFastThenRareAndAnewAfterAMove(t *testing.T) {
	b := newBench(t, 1)
	p := newID(t)
	b.after(0)
	for k := kindQUIC; k <= kindTCP; k++ {
		b.dialed(b.relays[0].id, k, "refused")
	}
	b.relayedPeer(p, true)
	remote := "/ip4/5.0.0.1/udp/9388/quic-v1"
	if got := b.after(addressWithin / 2); slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "attempt") }) {
		t.Errorf("without an address to offer: %v", got)
	}
	b.see("c1", 0, remote, "/ip4/7.0.0.1/udp/30000/quic-v1")
	if took := b.until("attempt 0 over r1"); took != 0 {
		t.Errorf("the first after %v", took)
	}
	var waits []time.Duration
	for i := range 10 {
		b.now = b.now.Add(2 * time.Second)
		b.attempted(p, b.peers[p].id, Attempt{Err: "no answer"}, outcomeFailed)
		waits = append(waits, b.until(fmt.Sprintf("attempt %d", i+1)))
	}
	if waits[0] != schedule(1) || waits[1] != schedule(2) || waits[8] < schedule(9)*3/4 || waits[8] > schedule(9)*5/4 {
		t.Errorf("waits %v", waits)
	}
	if got := len(b.peers[p].attempts); got != 10 {
		t.Errorf("%d attempts are remembered", got)
	}
	b.attempted(p, b.peers[p].id, Attempt{}, outcomeFailed)
	b.see("c1", 0, remote, "/ip4/7.0.0.1/udp/30000/quic-v1")
	b.want(b.after(0))
	b.see("c1", 0, remote, "/ip4/7.0.0.2/udp/30000/quic-v1")
	if took := b.until("attempt 0 over r1"); took != 0 {
		t.Errorf("after a move %v", took)
	}
	b.attempted(p, b.peers[p].id, Attempt{}, outcomeDirect)
	b.paths(p, b.peers[p].relayed, 1)
	b.now = b.now.Add(time.Hour)
	for _, w := range b.after(0) {
		if strings.HasPrefix(w, "attempt") {
			t.Error("an attempt beside a direct connection")
		}
	}
}

func TestCore_TheOtherSideOfTheRelayedConnectionWaits(t *testing.T) {
	b := newBench(t, 1)
	b.see("c1", 0, "/ip4/5.0.0.1/udp/9388/quic-v1", "/ip4/7.0.0.1/udp/30000/quic-v1")
	p := newID(t)
	b.relayedPeer(p, false)
	if took := b.until("attempt"); took < politeness*3/4 || took > politeness*5/4 {
		t.Errorf("after %v", took)
	}
}

func TestCore_WhenBothBegin(t *testing.T) {
	ids := []peer.ID{newID(t), newID(t)}
	slices.Sort(ids)
	for i, self := range ids {
		b := newBench(t, 1)
		b.self = self
		b.see("c1", 0, "/ip4/5.0.0.1/udp/9388/quic-v1", "/ip4/7.0.0.1/udp/30000/quic-v1")
		p := ids[1-i]
		b.relayedPeer(p, true)
		b.until("attempt")
		mine := b.peers[p].id
		refusal, id := b.asks(p)
		if yields := i == 1; yields != (refusal == wire.Refusal_REFUSAL_UNSPECIFIED) {
			t.Errorf("the one with the ID number %d: %s", i, refusal)
		}
		if i == 0 {
			continue
		}
		if b.dialing(p, mine) || !b.dialing(p, id) {
			t.Error("the attempt that was given up goes on")
		}
		b.attempted(p, mine, Attempt{}, outcomeFailed)
		if len(b.peers[p].attempts) != 0 || !b.peers[p].running {
			t.Error("the end of the one that was given up counts")
		}
		// The peer begins anew: it has given up what it began.
		if refusal, again := b.asks(p); refusal != wire.Refusal_REFUSAL_UNSPECIFIED || again == id {
			t.Errorf("anew: %s", refusal)
		}
	}
}

func TestCore_APeerCannotAskTooOften(t *testing.T) {
	b := newBench(t, 1)
	p := newID(t)
	b.relayedPeer(p, false)
	served := 0
	for range 600 { // ten minutes
		b.now = b.now.Add(time.Second)
		if refusal, id := b.asks(p); refusal == wire.Refusal_REFUSAL_UNSPECIFIED {
			served++
			b.attempted(p, id, Attempt{}, outcomeFailed)
		}
	}
	if most := exchangeBurst + int(10*time.Minute/exchangeEvery); served > most || served < most-2 {
		t.Errorf("%d exchanges in ten minutes, want %d", served, most)
	}
	if refusal, _ := b.asks(newID(t)); refusal == wire.Refusal_REFUSAL_UNSPECIFIED {
		t.Error("a peer without a relayed connection is served")
	}
}

func TestCore_OnlyAllowedPeersAreTried(t *testing.T) {
	b := newBench(t, 1)
	allowed := false
	b.allow = func(peer.ID) bool { return allowed }
	b.see("c1", 0, "/ip4/5.0.0.1/udp/9388/quic-v1", "/ip4/7.0.0.1/udp/30000/quic-v1")
	b.relayedPeer(newID(t), true)
	for range 60 {
		for _, w := range b.after(time.Second) {
			if strings.HasPrefix(w, "attempt") {
				t.Fatal(w)
			}
		}
	}
	allowed = true
	b.until("attempt")
}

func TestCore_AttemptsAtOnceAndPeersAreBounded(t *testing.T) {
	b := newBench(t, 1)
	b.see("c1", 0, "/ip4/5.0.0.1/udp/9388/quic-v1", "/ip4/7.0.0.1/udp/30000/quic-v1")
	for range 2 * maxExchanges {
		b.relayedPeer(newID(t), true)
	}
	attempts := 0
	for _, w := range b.after(0) {
		if strings.HasPrefix(w, "attempt") {
			attempts++
		}
	}
	if attempts != maxExchanges {
		t.Errorf("%d attempts at once", attempts)
	}
	for range 2 * maxPeers {
		p := newID(t)
		b.now = b.now.Add(time.Second)
		b.relayedPeer(p, true)
		b.paths(p, nil, 0)
	}
	if len(b.peers) > maxPeers {
		t.Errorf("%d peers are remembered", len(b.peers))
	}
}

func TestCore_RenewingIsRareWhenItBringsNothing(t *testing.T) {
	b := newBench(t, 1)
	remote := "/ip4/5.0.0.1/udp/9388/quic-v1"
	b.after(0)
	b.dialed(b.relays[0].id, kindQUIC, "")
	b.link("c0", 0, remote)
	b.see("c0", 0, remote, "/ip4/7.0.0.1/udp/30000/quic-v1")
	renewals, conn := 0, "c0"
	for i := range 3600 { // an hour of failing attempts
		b.now = b.now.Add(time.Second)
		b.pinged(conn, time.Millisecond, true)
		b.renew(false)
		b.tick()
		if slices.Contains(b.wants(), "dial relay0 quic") {
			renewals++
			b.dialed(b.relays[0].id, kindQUIC, "")
			conn = fmt.Sprint("c", i+1)
			b.link(conn, 0, remote)
			b.see(conn, 0, remote, "/ip4/7.0.0.1/udp/30000/quic-v1")
		}
	}
	if renewals < 5 || renewals > 25 {
		t.Errorf("%d new connections to the relay in an hour", renewals)
	}
}

func TestSlept(t *testing.T) {
	for _, tc := range []struct {
		timers, wall time.Duration
		want         bool
	}{
		{time.Second, time.Second, false},
		{time.Second, 2 * time.Second, false},
		{time.Second, time.Minute, true},
		{time.Minute, time.Minute, false}, // it had too much to do
		{time.Second, -time.Hour, false},  // the clock was set
	} {
		if got := slept(tc.timers, tc.wall); got != tc.want {
			t.Errorf("%v by timers, %v on the wall: %v", tc.timers, tc.wall, got)
		}
	}
	var s sleep
	if now := time.Now(); s.since(now) || s.since(now.Add(time.Second)) {
		t.Error("a second awake is taken for sleep")
	}
}

func TestCore_ANewRelayedConnectionBesideADirectOneIsADoubt(t *testing.T) {
	b := newBench(t, 1)
	p := newID(t)
	b.relayedPeer(p, false)
	b.paths(p, b.peers[p].relayed, 1)
	b.wants()
	two := append(slices.Clone(b.peers[p].relayed), carried{conn: "r2", relay: b.relays[0].id, realm: addr.Public})
	b.now = b.now.Add(suspicious / 2) // both came up at once
	b.paths(p, two, 1)
	if got := b.wants(); len(got) > 0 {
		t.Errorf("%v", got)
	}
	b.paths(p, nil, 1)
	b.now = b.now.Add(time.Minute)
	b.paths(p, two[1:], 1)
	b.want(b.wants(), "verify")
}

func TestCore_AttemptsWaitForTheOtherConnectionsToRelays(t *testing.T) {
	b := newBench(t, 1)
	b.after(0) // dials over both transports
	b.link("c1", 0, "/ip4/5.0.0.1/udp/9388/quic-v1")
	b.dialed(b.relays[0].id, kindQUIC, "")
	b.see("c1", 0, "/ip4/5.0.0.1/udp/9388/quic-v1", "/ip4/7.0.0.1/udp/30000/quic-v1")
	b.relayedPeer(newID(t), true)
	if took := b.until("attempt"); took != known {
		t.Errorf("begun after %v", took)
	}

	b = newBench(t, 1)
	b.after(0)
	b.link("c1", 0, "/ip4/5.0.0.1/udp/9388/quic-v1")
	b.dialed(b.relays[0].id, kindQUIC, "")
	b.see("c1", 0, "/ip4/5.0.0.1/udp/9388/quic-v1", "/ip4/7.0.0.1/udp/30000/quic-v1")
	b.relayedPeer(newID(t), true)
	b.after(100 * time.Millisecond)
	b.link("c2", 0, "/ip4/5.0.0.1/tcp/9388")
	b.dialed(b.relays[0].id, kindTCP, "")
	b.after(20 * time.Millisecond)
	b.see("c2", 0, "/ip4/5.0.0.1/tcp/9388", "/ip4/7.0.0.1/tcp/30000")
	if took := b.until("attempt"); took != 0 {
		t.Errorf("begun after %v more", took)
	}
}

func TestCore_AnAttemptThatIsOvertakenByAMoveIsBegunAnew(t *testing.T) {
	b := newBench(t, 1)
	p := newID(t)
	b.see("c1", 0, "/ip4/5.0.0.1/udp/9388/quic-v1", "/ip4/7.0.0.1/udp/30000/quic-v1")
	b.relayedPeer(p, true)
	b.until("attempt 0")
	b.dialing(p, b.peers[p].id)
	old := b.peers[p].id
	b.see("c2", 0, "/ip4/5.0.0.1/tcp/9388", "/ip4/7.0.0.1/tcp/30000")
	if took := b.until("attempt 0"); took != 0 || b.peers[p].id == old {
		t.Errorf("begun anew after %v", took)
	}
	// The other side may begin another when this one's dials are in vain.
	b.dialing(p, b.peers[p].id)
	if refusal, _ := b.asks(p); refusal != wire.Refusal_REFUSAL_BUSY {
		t.Errorf("at once: %s", refusal)
	}
	b.now = b.now.Add(inVain)
	if refusal, _ := b.asks(p); refusal != wire.Refusal_REFUSAL_UNSPECIFIED {
		t.Errorf("later: %s", refusal)
	}
}
