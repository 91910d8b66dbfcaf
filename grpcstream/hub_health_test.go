package grpcstream

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/internal/virtual"
)

func TestHub_NotServingGetsNoCall(t *testing.T) {
	h, w := newFakeHub()
	offering(h, "a", "b")
	connectAll(t, h, w, selector{})
	h.told(probeOf(w, "a"), notServing, 0)
	wantSpread(t, spread(t, h, selector{}, 10), map[peer.ID]int{"b": 10})
	h.told(probeOf(w, "b"), notServing, 0)
	c := newCall(selector{})
	if _, v := h.pick(c, who1); v != held {
		t.Errorf("verdict %d when nobody is serving", v)
	}
	wantReason(t, h.explain(c, who1), ReasonNotServing)
	if l, v := h.pick(newCall(selector{peer: "a"}), who1); v != picked || l.peer.id != "a" {
		t.Error("a named peer does not get its call")
	}
	h.told(probeOf(w, "a"), serving, 0)
	wantSpread(t, spread(t, h, selector{}, 10), map[peer.ID]int{"a": 10})
	h.told(probeOf(w, "b"), unsaid, 0)
	wantSpread(t, spread(t, h, selector{}, 10), map[peer.ID]int{"a": 5, "b": 5})
}

// An instance that has just been connected gets no call before it has said that it is serving, or has not said anything
// for a second.
func TestHub_UnknownHealthIsWaitedFor(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h, w := newFakeHub()
		defer h.close()
		w.quiet = true
		offering(h, "a")
		c := newCall(selector{})
		h.pick(c, who1)
		w.upAll()
		if _, v := h.pick(c, who1); v != held {
			t.Fatalf("verdict %d before the first answer", v)
		}
		time.Sleep(askWait - time.Millisecond)
		if _, v := h.pick(c, who1); v != held {
			t.Fatalf("verdict %d just before the end of the wait", v)
		}
		wakes := w.wakes.Load()
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if w.wakes.Load() == wakes {
			t.Error("nobody is woken at the end of the wait")
		}
		if _, v := h.pick(c, who1); v != picked {
			t.Fatalf("verdict %d after the wait", v)
		}
		// With another one that serves, nobody waits.
		offering(h, "b")
		w.quiet = false
		connectAll(t, h, w, selector{})
		h.down(h.peers["a"].link.Load(), nil)
		w.quiet = true
		time.Sleep(10 * time.Second)
		h.pick(newCall(selector{}), who1)
		h.pick(newCall(selector{}), who1)
		w.upAll()
		wantSpread(t, spread(t, h, selector{}, 10), map[peer.ID]int{"b": 10})
	})
}

// A call that a dial took nearly all of its time is not ended by the question about health that comes after it.
func TestHub_HealthIsWaitedForAfterALongDial(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h, w := newFakeHub()
		defer h.close()
		w.quiet = true
		offering(h, "a")
		c := newCall(selector{})
		h.pick(c, who1)
		time.Sleep(h.wait + connectTimeout - time.Millisecond)
		w.upAll()
		if _, v := h.pick(c, who1); v != held {
			t.Fatalf("verdict %d while its only instance is being asked", v)
		}
		time.Sleep(askWait)
		synctest.Wait()
		if _, v := h.pick(c, who1); v != picked {
			t.Fatalf("verdict %d after the wait", v)
		}
	})
}

// A connected peer that begins to offer a service, and says nothing of its health, gets calls when the wait is over, though
// nothing else happens by then.
func TestHub_AServiceThatComesLaterIsWaitedForNoLonger(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h, w := newFakeHub()
		defer h.close()
		offering(h, "a", "b")
		connectAll(t, h, w, selector{})
		h.offers("a", offer{node: true})
		wantSpread(t, spread(t, h, selector{}, 10), map[peer.ID]int{"b": 10})
		time.Sleep(10 * time.Second)
		w.quiet = true
		offering(h, "a")
		wantSpread(t, spread(t, h, selector{}, 10), map[peer.ID]int{"b": 10})
		time.Sleep(askWait + time.Millisecond)
		synctest.Wait()
		wantSpread(t, spread(t, h, selector{}, 10), map[peer.ID]int{"a": 5, "b": 5})
	})
}

// One question for each instance of a service that is called, however many calls there are, and none for the others.
func TestHub_AsksOnlyWhatIsCalled(t *testing.T) {
	h, w := newFakeHub()
	for i := range 5 {
		h.offers(peer.ID(fmt.Sprint(i)), offer{node: true, services: []string{"x.A", "x.B", "x.C"}})
	}
	connectAll(t, h, w, selector{})
	spread(t, h, selector{}, 100)
	if n := len(w.probes); n != 5 {
		t.Fatalf("%d questions for 5 instances of one service", n)
	}
	h.pick(newCall(selector{}), "/x.B/Who")
	if n := len(w.probes); n != 10 {
		t.Fatalf("%d questions for 5 instances of two services", n)
	}
	for range 2 * idleSweeps { // nobody calls
		for _, p := range h.peers {
			p.picks.Add(1) // but by their ID
		}
		h.sweep()
	}
	for _, q := range w.probes {
		if q.ctx.Err() == nil {
			t.Fatal("a question goes on although nobody calls the service")
		}
	}
	connectAll(t, h, w, selector{}) // the next call asks again
	wantSpread(t, spread(t, h, selector{}, 10), map[peer.ID]int{"0": 2, "1": 2, "2": 2, "3": 2, "4": 2})
	h.offers("0", offer{node: true})
	if q := probeOf(w, "0"); q != nil {
		t.Error("the question to an instance that has left goes on")
	}
}

// Callers that name ever other tags leave nothing behind, though the service is called all the time.
func TestHub_TagsThatNobodyNamesAnyLongerAreForgotten(t *testing.T) {
	h, w := newFakeHub()
	offering(h, "a")
	connectAll(t, h, w, selector{})
	for i := range 100 {
		h.pick(newCall(selector{tags: fmt.Sprintf("k=%d", i)}), who1)
	}
	for range idleSweeps + 1 {
		h.pick(newCall(selector{tags: "k=0"}), who1)
		spread(t, h, selector{}, 1)
		h.sweep()
	}
	if s := h.services["x.A"]; len(s.tagged) != 1 || !s.called {
		t.Errorf("%d sets of tags are kept, want 1", len(s.tagged))
	}
}
