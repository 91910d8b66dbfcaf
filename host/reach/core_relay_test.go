package reach

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCore_BothTransportsAreDialedAtOnce(t *testing.T) {
	b := newBench(t, 2)
	b.want(b.after(0), "dial relay0 quic", "dial relay0 tcp", "dial relay1 quic", "dial relay1 tcp")
	b.want(b.after(900 * time.Millisecond))
	b.want(b.after(200*time.Millisecond), "dial relay0 websocket", "dial relay1 websocket")
}

func TestCore_WebSocketIsNotDialedWhenOthersGetThrough(t *testing.T) {
	b := newBench(t, 1)
	b.after(0)
	b.link("c1", 0, "/ip4/5.0.0.1/tcp/9388")
	for range 100 {
		for _, w := range b.after(100 * time.Millisecond) {
			if strings.Contains(w, "websocket") {
				t.Fatal(w)
			}
		}
	}
}

func TestCore_ReservesAtOnceAndRenewsInTime(t *testing.T) {
	b := newBench(t, 1)
	b.after(0)
	b.link("c1", 0, "/ip4/5.0.0.1/udp/9388/quic-v1")
	b.want(b.after(0), "reserve relay0")
	b.reserved(b.relays[0].id, reservation{expires: b.now.Add(time.Hour)}, "", false)
	b.want(b.after(0), "announce Private 1")
	if took := b.until("reserve"); took < reserveEvery*3/4 || took > reserveEvery*5/4 {
		t.Errorf("renewed after %v", took)
	}
	b.reserved(b.relays[0].id, reservation{expires: b.now.Add(time.Minute)}, "", false)
	if took := b.until("reserve"); took > 30*time.Second {
		t.Errorf("one of a minute is renewed after %v", took)
	}
	// A relay whose clock is off grants a moment only, over and over.
	for range 10 {
		b.reserved(b.relays[0].id, reservation{expires: b.now.Add(time.Millisecond)}, "", false)
		if took := b.until("reserve"); took < reserveGap {
			t.Fatalf("one of a millisecond is renewed after %v", took)
		}
	}
	// What a relay refuses is asked for again ever more rarely, what failed soon.
	var last time.Duration
	for range 10 {
		b.reserved(b.relays[0].id, reservation{}, "full", true)
		last = b.until("reserve")
	}
	if last < reserveSlow*3/4 || last > reserveSlow*5/4 {
		t.Errorf("asked again after %v", last)
	}
	if len(b.announced.addrs) != 0 {
		t.Errorf("announced without a reservation: %v", b.announced.addrs)
	}
}

func TestCore_ARelayThatIsAwayIsDialedEveryTwoSeconds(t *testing.T) {
	b := newBench(t, 1)
	b.after(0)
	var pauses []time.Duration
	for range 12 {
		b.dialed(b.relays[0].id, kindTCP, "refused")
		pauses = append(pauses, b.until("dial relay0 tcp"))
	}
	if pauses[0] > 2*pauseFirst*5/4 || pauses[11] > pauseAway*5/4 || pauses[11] < pauseAway*3/4 {
		t.Errorf("pauses %v", pauses)
	}
	// While another transport works, the second is tried rarely.
	b.dialed(b.relays[0].id, kindQUIC, "")
	b.link("c1", 0, "/ip4/5.0.0.1/udp/9388/quic-v1")
	b.see("c1", 0, "/ip4/5.0.0.1/udp/9388/quic-v1", "/ip4/7.0.0.1/udp/1/quic-v1")
	b.dialed(b.relays[0].id, kindTCP, "refused")
	b.reserved(b.relays[0].id, reservation{expires: b.now.Add(time.Hour)}, "", false)
	took := time.Duration(0)
	for begun := b.now; took == 0; {
		b.pinged("c1", time.Millisecond, true)
		if slices.Contains(b.after(time.Second), "dial relay0 tcp") {
			took = b.now.Sub(begun)
		}
	}
	if took < pauseMore*3/4-time.Second || took > pauseMore*5/4+time.Second {
		t.Errorf("tried again after %v", took)
	}
	// Everything is tried at once when the network has changed.
	b.dialed(b.relays[0].id, kindTCP, "refused")
	b.disturbed()
	if got := b.after(0); !slices.Contains(got, "dial relay0 tcp") || !slices.Contains(got, "dial relay0 quic") {
		t.Errorf("after a change: %v", got)
	}
}

// On a slow line a handshake takes longer; on others a long dial would miss that the relay is back.
func TestCore_ARelayThatMayBeFarIsDialedSlowlyMoreOften(t *testing.T) {
	for rtt, want := range map[time.Duration]int{0: 6, 20 * time.Millisecond: 2, time.Second: 6} {
		b := newBench(t, 1)
		b.relays[0].rtt = rtt
		slow := 0
		for range 18 {
			for dialing := false; !dialing; {
				b.now = b.now.Add(100 * time.Millisecond)
				b.tick()
				for _, a := range b.out {
					if a.kind == actDial && a.via == kindTCP {
						dialing = true
						if a.timeout == dialSlowly {
							slow++
						}
					}
				}
				b.out = nil
			}
			b.dialed(b.relays[0].id, kindTCP, "no answer")
		}
		if slow != want {
			t.Errorf("round trip %v: %d of 18 dials were slow, want %d", rtt, slow, want)
		}
	}
}

func TestCore_ARelayThatEndsConnectionsIsNotHammered(t *testing.T) {
	b := newBench(t, 1)
	b.after(0)
	b.dialed(b.relays[0].id, kindTCP, "refused")
	dials := 0
	for i := range 1200 { // two minutes
		for _, w := range b.after(100 * time.Millisecond) {
			if w != "dial relay0 tcp" {
				continue
			}
			dials++
			conn := fmt.Sprint("c", i)
			b.dialed(b.relays[0].id, kindTCP, "")
			b.link(conn, 0, "/ip4/5.0.0.1/tcp/9388")
			b.linkDown(conn)
		}
	}
	if dials > 25 {
		t.Errorf("%d dials in two minutes", dials)
	}
	if s := b.relayStatus(b.relays[0]); !strings.Contains(s.LastError, "on its allow list") {
		t.Errorf("%+v", s)
	}
}

func TestCore_AConnectionThatMissesAPingIsReplacedFirst(t *testing.T) {
	b := newBench(t, 1)
	b.after(0)
	b.dialed(b.relays[0].id, kindTCP, "")
	b.link("c1", 0, "/ip4/5.0.0.1/tcp/9388")
	b.want(b.after(0), "reserve relay0")
	b.reserved(b.relays[0].id, reservation{expires: b.now.Add(time.Hour)}, "", false)
	b.after(0)
	b.until("ping c1")
	b.pinged("c1", 0, false)
	b.want(b.after(0), "dial relay0 tcp", "ping c1")
	b.pinged("c1", 0, false)
	if b.joined(b.relays[0]) {
		t.Error("it counts as connected")
	}
	b.until("ping c1")
	// It answers after all.
	b.pinged("c1", time.Millisecond, true)
	if !b.joined(b.relays[0]) {
		t.Error("it does not count as connected")
	}
	b.until("ping c1")
	b.pinged("c1", 0, false)
	b.dialed(b.relays[0].id, kindTCP, "")
	b.link("c2", 0, "/ip4/5.0.0.1/tcp/9388")
	if got := b.after(0); !slices.Contains(got, "close c1") || !slices.Contains(got, "reserve relay0") {
		t.Errorf("with a substitute: %v", got)
	}
	// Without a substitute it is closed in the end.
	b.linkDown("c1")
	for range pingMisses {
		b.until("ping c2")
		b.pinged("c2", 0, false)
	}
	if got := b.wants(); !slices.Contains(got, "close c2") {
		t.Errorf("%v", got)
	}
}

func TestCore_TheEndOfOneConnectionHasTheOthersLookedAt(t *testing.T) {
	b := newBench(t, 1)
	b.after(0)
	b.link("c1", 0, "/ip4/5.0.0.1/tcp/9388")
	b.see("c1", 0, "/ip4/5.0.0.1/tcp/9388", "/ip4/7.0.0.1/tcp/1")
	b.link("c2", 0, "/ip4/5.0.0.1/udp/9388/quic-v1")
	b.see("c2", 0, "/ip4/5.0.0.1/udp/9388/quic-v1", "/ip4/7.0.0.1/udp/1/quic-v1")
	b.dialed(b.relays[0].id, kindTCP, "")
	b.dialed(b.relays[0].id, kindQUIC, "")
	b.reserved(b.relays[0].id, reservation{expires: b.now.Add(time.Hour)}, "", false)
	b.after(100 * time.Millisecond)
	b.after(lasting)
	b.pinged("c1", time.Millisecond, true)
	b.pinged("c2", time.Millisecond, true)
	b.wants()
	b.linkDown("c1")
	b.want(b.after(0), "dial relay0 tcp", "ping c2")
}

func TestCore_CircuitAddressesOutlastAShortAbsence(t *testing.T) {
	b := newBench(t, 1)
	b.after(0)
	b.link("c1", 0, "/ip4/5.0.0.1/tcp/9388")
	b.after(0)
	b.reserved(b.relays[0].id, reservation{expires: b.now.Add(time.Hour), addrs: addrs("/ip4/5.0.0.1/udp/9388/quic-v1", "/ip4/5.0.0.9/tcp/1")}, "", false)
	b.want(b.after(0), "announce Private 3")
	b.after(lasting)
	b.linkDown("c1")
	if took := b.until("announce Private 0"); took != circuitLinger {
		t.Errorf("withdrawn after %v", took)
	}
}

func TestCore_AReplacedConnectionStaysUntilTheNewOneHasTold(t *testing.T) {
	b := newBench(t, 1)
	b.after(0)
	remote := "/ip4/5.0.0.1/udp/9388/quic-v1"
	b.link("c1", 0, remote)
	b.see("c1", 0, remote, "/ip4/7.0.0.1/udp/30000/quic-v1")
	b.after(0)
	b.renew(true)
	b.dialed(b.relays[0].id, kindQUIC, "")
	b.wants()
	b.renew(true)
	b.link("c2", 0, remote)
	for _, w := range b.after(0) {
		if w == "retire c1" {
			t.Error(w)
		}
	}
	b.see("c2", 0, remote, "/ip4/7.0.0.1/udp/30001/quic-v1")
	if took := b.until("retire c1"); took < lingers || took > lingers+2*time.Second {
		t.Errorf("it is closed %v after it was replaced", took)
	}
	if diff := cmp.Diff("[/ip4/7.0.0.1/udp/30001/quic-v1]", fmt.Sprint(b.outside())); diff != "" {
		t.Error(diff)
	}
}

func TestCore_TheTCPConnectionFromTheListeningPortStays(t *testing.T) {
	for name, ports := range map[string][2]uint16{"first": {9388, 40000}, "second": {40000, 9388}} {
		b := newBench(t, 1)
		b.after(0)
		r, remote := b.relays[0], addrs("/ip4/5.0.0.1/tcp/9388")[0]
		b.dialed(r.id, kindTCP, "")
		b.linkUp("c0", r.id, remote, ports[0])
		b.linkUp("c1", r.id, remote, ports[1])
		for conn, l := range b.links {
			if l.retired != (l.local != 9388) {
				t.Errorf("%s: %s from port %d: retired %v", name, conn, l.local, l.retired)
			}
		}
	}
	// One that left from another port is made anew, not for ever.
	b := newBench(t, 1)
	b.after(0)
	r, remote := b.relays[0], addrs("/ip4/5.0.0.1/tcp/9388")[0]
	dials := 0
	b.dialed(r.id, kindTCP, "")
	b.linkUp("c", r.id, remote, 40000)
	for i := range 1200 { // two minutes
		for _, w := range b.after(100 * time.Millisecond) {
			switch {
			case w == "dial relay0 tcp":
				dials++
				b.dialed(r.id, kindTCP, "")
				b.linkDown("c")
				b.linkUp("c", r.id, remote, uint16(40001+i))
			case strings.HasPrefix(w, "ping"):
				b.pinged("c", time.Millisecond, true)
			}
		}
	}
	if dials < 3 || dials > maxMakeshifts {
		t.Errorf("%d dials", dials)
	}
}

func TestCore_AHostThatDoesNotListenYetIsWaitedFor(t *testing.T) {
	b := newBench(t, 1)
	listening := b.listening
	b.listening = nil
	b.want(b.after(0))
	b.situation(b.machine, listening, b.addrs)
	b.want(b.after(0), "dial relay0 quic", "dial relay0 tcp")
	b = newBench(t, 1)
	b.listening = nil
	if took := b.until("dial"); took != listenWithin {
		t.Errorf("dialed after %v", took)
	}
}

func TestCore_AnnouncesAddressesOfRelaysThatReachFarEnough(t *testing.T) {
	for remote, want := range map[string]string{
		"/ip4/5.0.0.1/tcp/9388":  "/ip4/5.0.0.1/tcp/9388 /ip4/5.0.0.1/udp/9388/quic-v1",
		"/ip4/10.0.0.1/tcp/9388": "/ip4/10.0.0.1/tcp/9388 /ip4/5.0.0.1/udp/9388/quic-v1",
	} {
		b := newBench(t, 1)
		b.after(0)
		b.link("c", 0, remote)
		b.reserved(b.relays[0].id, reservation{expires: b.now.Add(time.Hour), addrs: addrs(
			"/ip4/5.0.0.1/udp/9388/quic-v1", "/ip4/127.0.0.1/tcp/9388", "/ip6/::1/tcp/9388",
		)}, "", false)
		b.after(0)
		var got []string
		for _, a := range b.announced.addrs {
			got = append(got, strings.Split(a.String(), "/p2p/")[0])
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
			t.Errorf("reached at %s: %s", remote, diff)
		}
	}
}

func TestCore_EqualReasonsAreToldOnce(t *testing.T) {
	b := newBench(t, 1)
	r := b.relays[0]
	for k, text := range map[kind]string{kindQUIC: "no answer", kindTCP: "no answer", kindWebSocket: "malformed HTTP response"} {
		b.dialed(r.id, k, text)
	}
	if got := b.relayStatus(r).LastError; got != "quic, tcp: no answer" {
		t.Error(got)
	}
}

// TCP listens a moment before QUIC does, and a dial over QUIC leaves from another port meanwhile.
func TestCore_AConnectionFromBeforeTheHostListenedIsMadeAnew(t *testing.T) {
	b := newBench(t, 1)
	both := b.listening
	b.listening = both[1:]
	b.want(b.after(0), "dial relay0 tcp")
	b.situation(b.machine, both, b.addrs)
	b.want(b.after(0), "dial relay0 quic")
	r, remote := b.relays[0], "/ip4/5.0.0.1/udp/9388/quic-v1"
	b.dialed(r.id, kindQUIC, "")
	b.linkUp("c1", r.id, addrs(remote)[0], 48017)
	b.sighted("c1", r.id, addrs(remote)[0], addrs("/ip4/0.0.0.0/udp/48017/quic-v1")[0], addrs("/ip4/7.0.0.1/udp/30000/quic-v1")[0])
	if got := b.outside(); len(got) > 0 {
		t.Errorf("seen at %v", got)
	}
	if took := b.until("dial relay0 quic"); took < makeshiftFor || took > 2*makeshiftFor {
		t.Errorf("made anew after %v", took)
	}
}
