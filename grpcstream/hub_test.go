package grpcstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/virtual"
)

// A fakeWire connects when the test says so.
type fakeWire struct {
	hub     *hub
	dialing []*link
	ups     map[*link]bool
	dials   map[peer.ID]int
	wakes   atomic.Int64
	refuse  error
	probes  []*probe // asked for; answered at once unless quiet
	quiet   bool
	asked   func(*probe)         // told of each question; nil: nobody
	path    map[peer.ID]PathKind // of links that come up; direct where nothing is said
}

func newFakeHub() (*hub, *fakeWire) {
	h := newHub("test", 5*time.Second)
	w := &fakeWire{hub: h, ups: map[*link]bool{}, dials: map[peer.ID]int{}}
	h.attach(w)
	return h, w
}

func (w *fakeWire) connect(l *link) error {
	if w.refuse != nil {
		return w.refuse
	}
	w.dialing = append(w.dialing, l)
	w.dials[l.peer.id]++
	return nil
}

func (w *fakeWire) disconnect(l *link) { delete(w.ups, l) }

func (w *fakeWire) ask(q *probe, ended func()) {
	defer ended()
	w.probes = append(w.probes, q)
	if w.asked != nil {
		w.asked(q)
	}
	if !w.quiet {
		w.hub.told(q, serving, 0)
	}
}

func (w *fakeWire) wake() { w.wakes.Add(1) }

// up completes the ith dial.
func (w *fakeWire) up(i int) *link {
	l := w.dialing[i]
	w.dialing = slices.Delete(w.dialing, i, i+1)
	w.ups[l] = true
	l.path = cmp.Or(w.path[l.peer.id], PathDirect)
	w.hub.up(l)
	return l
}

// down fails the ith dial.
func (w *fakeWire) down(i int, err error) {
	l := w.dialing[i]
	w.dialing = slices.Delete(w.dialing, i, i+1)
	w.hub.down(l, err)
}

func (w *fakeWire) upAll() {
	for len(w.dialing) > 0 {
		w.up(0)
	}
}

func newCall(sel selector) *call { return &call{Context: context.Background(), sel: &sel} }

const who1 = "/x.A/Who"

func TestHub_EveryInstanceInTurn(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7} {
		h, w := newFakeHub()
		for i := range n {
			h.offers(peer.ID(fmt.Sprint(i)), offer{node: true, services: []string{"x.A"}})
		}
		for range 4 * n {
			if l, v := h.pick(newCall(selector{}), who1); v == picked {
				l.done(false)
			}
			w.upAll()
		}
		count := map[peer.ID]int{}
		for range 100 * n {
			l, v := h.pick(newCall(selector{}), who1)
			if v != picked {
				t.Fatalf("%d instances: verdict %d", n, v)
			}
			count[l.peer.id]++
			l.done(false)
		}
		for id, c := range count {
			if c != 100 {
				t.Errorf("%d instances: %s got %d of %d calls", n, id, c, 100*n)
			}
		}
		for id, d := range w.dials {
			if d != 1 {
				t.Errorf("%d instances: %s dialed %d times", n, id, d)
			}
		}
	}
}

// Retries move nobody's turn: with two instances, of which one fails each first attempt, both still get half of them.
func TestHub_RetriesDoNotMoveTheTurn(t *testing.T) {
	h, w := newFakeHub()
	for i := range 2 {
		h.offers(peer.ID(fmt.Sprint(i)), offer{node: true, services: []string{"x.A"}})
	}
	for range 4 {
		h.pick(newCall(selector{}), who1)
		w.upAll()
	}
	first := map[peer.ID]int{}
	for range 100 {
		c := newCall(selector{})
		l, _ := h.pick(c, who1)
		first[l.peer.id]++
		again, v := h.pick(c, who1)
		if v != picked || again.peer == l.peer {
			t.Fatal("the second attempt did not go to the other peer")
		}
		if third, v := h.pick(c, who1); v != picked || third == nil {
			t.Fatal("the third attempt went nowhere")
		}
	}
	if first["0"] != 50 {
		t.Fatalf("first attempts: %v", first)
	}
}

func TestHub_DialsOnlyWhatCallsNeed(t *testing.T) {
	h, w := newFakeHub()
	for i := range 50 {
		h.offers(peer.ID(fmt.Sprintf("%02d", i)), offer{node: true, services: []string{"x.A", "x.B"}})
	}
	if len(w.dials) != 0 {
		t.Fatal("dialed without a call")
	}
	h.pick(newCall(selector{}), who1)
	if len(w.dials) != dialsPerService {
		t.Fatalf("the first call dialed %d", len(w.dials))
	}
	w.upAll()
	for range 10 {
		h.pick(newCall(selector{}), who1)
		w.upAll()
	}
	if n := len(w.dials); n > dialsPerService+10 {
		t.Fatalf("eleven calls dialed %d", n)
	}
	for range 200 {
		h.pick(newCall(selector{}), "/x.B/Who")
		h.pick(newCall(selector{}), who1)
		w.upAll()
	}
	for id, n := range w.dials {
		if n != 1 {
			t.Fatalf("%s was dialed %d times for two services", id, n)
		}
	}
}

func TestHub_AFlappingPeerIsNotDialedWithoutPause(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h, w := newFakeHub()
		c := func() *call { return newCall(selector{peer: "p"}) }
		for range 1000 { // ten seconds of coming and going
			h.cameBack("p")
			h.pick(c(), who1)
			for len(w.dialing) > 0 {
				w.down(0, errors.New("refused"))
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := w.dials["p"]; n > 25 {
			t.Fatalf("%d dials in ten seconds", n)
		}
		for range 100 {
			h.pick(c(), who1)
			for len(w.dialing) > 0 {
				w.up(0)
			}
			h.mu.RLock()
			l := h.peers["p"].link.Load()
			h.mu.RUnlock()
			if l != nil {
				h.down(l, nil) // taken and dropped at once
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := w.dials["p"]; n > 35 {
			t.Fatalf("%d dials of a peer that drops each tunnel", n)
		}
		h.close()
	})
}

// A tunnel that ends with the connection under it, before it was made, may have had a connection that was dead already:
// the call is held and goes over the next one. One that the peer itself refuses fails the call.
func TestHub_ConnectionLostWhileATunnelIsMade(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want verdict
	}{
		"let go":  {fmt.Errorf("error reading server preface: %w", &network.ConnError{ErrorCode: network.ConnGarbageCollected}), held},
		"lost":    {fmt.Errorf("error reading server preface: %w", &network.ConnError{ErrorCode: network.ConnNoError}), held},
		"refused": {fmt.Errorf("error reading server preface: %w", &network.ConnError{ErrorCode: network.ConnGated, Remote: true}), gaveUp},
		"garbage": {errors.New("error reading server preface: no HTTP/2"), gaveUp},
	} {
		t.Run(name, func(t *testing.T) {
			virtual.Test(t, func(t *testing.T) {
				h, w := newFakeHub()
				defer h.close()
				call := newCall(selector{peer: "p"})
				if _, v := h.pick(call, who1); v != held {
					t.Fatalf("verdict %d before the dial", v)
				}
				w.down(0, c.err)
				if _, v := h.pick(call, who1); v != c.want {
					t.Fatalf("verdict %d, want %d", v, c.want)
				}
				if c.want == gaveUp {
					return
				}
				time.Sleep(time.Second)
				h.pick(call, who1)
				if len(w.dialing) != 1 {
					t.Fatal("it is not dialed again")
				}
				w.up(0)
				if _, v := h.pick(call, who1); v != picked {
					t.Errorf("verdict %d over the next connection", v)
				}
			})
		})
	}
}

func TestHub_PauseGrowsAndEnds(t *testing.T) {
	for n := range 100 {
		d := pauseAfter(n + 1)
		low := min(backoffMax, backoffBase<<min(n, 10)) * 8 / 10
		if d < low || d > backoffMax*12/10 {
			t.Fatalf("after %d failures: %v", n+1, d)
		}
	}
}

func TestHub_CallsWaitNoLongerThanAllowed(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h, w := newFakeHub()
		defer h.close()
		for name, c := range map[string]*call{
			"an unknown service": newCall(selector{}),
			"an unknown peer":    newCall(selector{peer: "q"}),
		} {
			start := time.Now()
			for {
				_, v := h.pick(c, who1)
				for len(w.dialing) > 0 {
					w.down(0, errUnknownPeer)
				}
				if v == gaveUp {
					break
				}
				time.Sleep(time.Millisecond)
			}
			if d := time.Since(start).Round(time.Second); d != 5*time.Second {
				t.Errorf("%s: %v", name, d)
			}
			wantReason(t, h.explain(c, who1), ReasonNoInstance)
		}
		patient := newCall(selector{})
		patient.patient = true
		for range 100 {
			if _, v := h.pick(patient, who1); v != held {
				t.Fatal("a patient call was given up")
			}
			time.Sleep(time.Second)
		}
	})
}

// A held call asks again only when it is woken: whatever it waits for must wake it.
func TestHub_EveryChangeWakes(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h, w := newFakeHub()
		defer h.close()
		woken := func(what string, f func()) {
			t.Helper()
			before := w.wakes.Load()
			f()
			if w.wakes.Load() == before {
				t.Errorf("%s woke nobody", what)
			}
		}
		woken("an instance", func() { h.offers("p", offer{node: true, services: []string{"x.A"}}) })
		h.pick(newCall(selector{}), who1)
		woken("a link", func() { w.up(0) })
		l := h.peers["p"].link.Load()
		woken("a lost link", func() { h.down(l, nil) })
		woken("a return", func() { h.cameBack("p") })
		h.pick(newCall(selector{}), who1)
		woken("a failed dial", func() { w.down(0, errors.New("refused")) })
		woken("the end of a pause", func() { time.Sleep(10 * time.Second); synctest.Wait() })
		h.pick(newCall(selector{}), who1)
		w.upAll()
		woken("an idle link", func() {
			for range 2 * idleSweeps {
				h.peers["p"].active.Store(0)
				h.sweep()
			}
		})
		woken("an instance that left", func() { h.offers("p", offer{node: false}) })
		h.pick(newCall(selector{}), who1)
		woken("the end of the wait", func() { time.Sleep(6 * time.Second); synctest.Wait() })
	})
}

func TestHub_SweepForgetsPeers(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h, w := newFakeHub()
		defer h.close()
		for i := range 100 {
			h.pick(newCall(selector{peer: peer.ID(fmt.Sprint(i))}), who1)
		}
		for len(w.dialing) > 0 {
			w.down(0, errors.New("refused"))
		}
		time.Sleep(time.Minute)
		for range 2 * idleSweeps {
			h.sweep()
		}
		if n := len(h.peers); n != 0 {
			t.Fatalf("%d peers are remembered", n)
		}
	})
}

func TestHub_ClosedWhileConnecting(t *testing.T) {
	h, w := newFakeHub()
	h.offers("p", offer{node: true, services: []string{"x.A"}})
	h.pick(newCall(selector{}), who1)
	h.close()
	w.up(0)
	if len(w.ups) != 0 {
		t.Fatal("a link came up after the end")
	}
}

func TestHub_AnAddressNamedAnewIsTriedAtOnce(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h, w := newFakeHub()
		defer h.close()
		const id, method = peer.ID("a"), "/x.A/M"
		refused := errors.New("refused")
		old := newCall(selector{peer: id})
		h.pick(old, method)
		w.down(0, refused)
		if _, v := h.pick(old, method); v != gaveUp {
			t.Fatalf("after a failed dial: %v", v)
		}
		// While the peer is left alone for that failure, somebody says where it is.
		at := newCall(selector{peer: id, addrs: []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.1/tcp/1")}})
		if _, v := h.pick(at, method); v != held || w.dials[id] != 2 || len(w.dialing[0].hints) != 1 {
			t.Fatalf("%v after %d dials", v, w.dials[id])
		}
		// Who names another place meanwhile has that one tried next, once.
		other := newCall(selector{peer: id, addrs: []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.2/tcp/1")}})
		if _, v := h.pick(other, method); v != held {
			t.Fatal(v)
		}
		w.down(0, refused)
		if _, v := h.pick(other, method); v != held || w.dials[id] != 3 {
			t.Fatalf("%v after %d dials", v, w.dials[id])
		}
		if _, v := h.pick(at, method); v != held {
			t.Fatal(v)
		}
		w.down(0, refused)
		for _, c := range []*call{at, other} {
			if _, v := h.pick(c, method); v != gaveUp || w.dials[id] != 3 {
				t.Fatalf("%v after %d dials", v, w.dials[id])
			}
		}
		// The same place again is no news.
		if _, v := h.pick(newCall(*other.sel), method); v != gaveUp || w.dials[id] != 3 {
			t.Fatalf("%v after %d dials", v, w.dials[id])
		}
	})
}
