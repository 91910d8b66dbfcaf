package grpcstream

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/internal/virtual"
)

// offering makes peers that offer x.A, and connects them as they are called.
func offering(h *hub, ids ...peer.ID) {
	for _, id := range ids {
		h.offers(id, offer{node: true, services: []string{"x.A"}})
	}
}

// connectAll has calls come until every instance is connected.
func connectAll(t *testing.T, h *hub, w *fakeWire, sel selector) {
	t.Helper()
	for range 20 {
		if l, v := h.pick(newCall(sel), who1); v == picked {
			l.done(true)
		}
		w.upAll()
	}
}

// spread counts who gets n calls, each ended before the next.
func spread(t *testing.T, h *hub, sel selector, n int) map[peer.ID]int {
	t.Helper()
	count := map[peer.ID]int{}
	for range n {
		l, v := h.pick(newCall(sel), who1)
		if v != picked {
			t.Fatalf("verdict %d", v)
		}
		count[l.peer.id]++
		l.done(true)
	}
	return count
}

func wantSpread(t *testing.T, got map[peer.ID]int, want map[peer.ID]int) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the calls went to %v, want %v", got, want)
	}
}

func probeOf(w *fakeWire, id peer.ID) *probe {
	i := slices.IndexFunc(w.probes, func(q *probe) bool { return q.instance.peer.id == id && q.ctx.Err() == nil })
	if i < 0 {
		return nil
	}
	return w.probes[i]
}

func TestHub_Tags(t *testing.T) {
	h, w := newFakeHub()
	h.offers("a", offer{node: true, services: []string{"x.A"}, tags: []string{"env=test", "zone=1"}})
	h.offers("b", offer{node: true, services: []string{"x.A"}, tags: []string{"env=prod", "zone=1"}})
	h.offers("c", offer{node: true, services: []string{"x.A"}, tags: []string{"env=prod", "zone=2"}})
	prod := *newSelector(Selector{Tags: []string{"env=prod"}})
	prod1 := *newSelector(Selector{Tags: []string{"zone=1", "env=prod", "zone=1"}})
	none := newSelector(Selector{Tags: []string{"env=none"}})
	connectAll(t, h, w, prod)
	if w.dials["a"] != 0 {
		t.Error("an instance without the tag was dialed")
	}
	connectAll(t, h, w, selector{})
	wantSpread(t, spread(t, h, prod, 10), map[peer.ID]int{"b": 5, "c": 5})
	wantSpread(t, spread(t, h, prod1, 10), map[peer.ID]int{"b": 10})
	c := newCall(*none)
	if _, v := h.pick(c, who1); v != held {
		t.Errorf("verdict %d with a tag that nobody has", v)
	}
	wantReason(t, h.explain(c, who1), ReasonNoInstance)
	// Callers of different selectors do not move one another's turn.
	count := map[peer.ID]int{}
	for range 10 {
		for _, sel := range []selector{prod, {}} {
			l, _ := h.pick(newCall(sel), who1)
			if sel.tags != "" {
				count[l.peer.id]++
			}
			l.done(true)
		}
	}
	wantSpread(t, count, map[peer.ID]int{"b": 5, "c": 5})
	h.offers("c", offer{node: true, services: []string{"x.A"}, tags: []string{"env=test"}})
	wantSpread(t, spread(t, h, prod, 10), map[peer.ID]int{"b": 10})
}

func TestHub_SetAside(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h, w := newFakeHub()
		defer h.close()
		offering(h, "a", "b", "c")
		connectAll(t, h, w, selector{})
		// fails makes calls of which those to the peers given fail, and counts them.
		fails := func(n int, bad ...peer.ID) map[peer.ID]int {
			count := map[peer.ID]int{}
			for range n {
				l, v := h.pick(newCall(selector{}), who1)
				if v != picked {
					t.Fatalf("verdict %d", v)
				}
				count[l.peer.id]++
				l.done(true)
				if slices.Contains(bad, l.peer.id) {
					h.judge(l.peer, missed)
				} else {
					h.judge(l.peer, answered)
				}
			}
			return count
		}
		if got := fails(300, "a"); got["a"] != asideAfter {
			t.Fatalf("a peer that fails got %d calls", got["a"])
		}
		if at := h.snapshot("x.A", "")[0].Aside; at.IsZero() {
			t.Error("it is not said to be set aside")
		}
		// A retry may go to it, when the others were tried.
		c := newCall(selector{})
		var tried []peer.ID
		for range 3 {
			l, _ := h.pick(c, who1)
			tried = append(tried, l.peer.id)
			l.done(true)
		}
		if tried[2] != "a" {
			t.Errorf("the attempts went to %v", tried)
		}
		time.Sleep(asideBase + time.Millisecond)
		synctest.Wait()
		if got := fails(300, "a"); got["a"] != 1 {
			t.Errorf("when it was back, it got %d calls until it was set aside again", got["a"])
		}
		time.Sleep(asideBase + time.Millisecond)
		synctest.Wait()
		if got := fails(300); got["a"] != 0 {
			t.Errorf("the second time it was set aside for no longer than the first time: %v", got)
		}
		time.Sleep(asideBase)
		synctest.Wait()
		wantSpread(t, fails(300), map[peer.ID]int{"a": 100, "b": 100, "c": 100})
		// Never more than half are set aside: of three one, of two one, of one none.
		got := fails(300, "a", "b", "c")
		if len(got) != 3 || len(h.services["x.A"].all.ready) != 2 {
			t.Errorf("%v; %d of 3 are called", got, len(h.services["x.A"].all.ready))
		}
		h.offers("c", offer{node: true})
		h.offers("b", offer{node: true})
		wantSpread(t, fails(10, "a"), map[peer.ID]int{"a": 10})
	})
}

// An application's error is an answer, and does not set aside; nor do failures with answers between them.
func TestHub_AnswersDoNotSetAside(t *testing.T) {
	h, w := newFakeHub()
	offering(h, "a", "b")
	connectAll(t, h, w, selector{})
	p := h.peers["a"]
	for range 100 {
		h.judge(p, missed)
		h.judge(p, missed)
		h.judge(p, answered)
		h.judge(p, neither)
	}
	wantSpread(t, spread(t, h, selector{}, 10), map[peer.ID]int{"a": 5, "b": 5})
}

func TestHub_DirectBeforeRelayed(t *testing.T) {
	h, w := newFakeHub()
	w.path = map[peer.ID]PathKind{"r": PathRelay}
	h.offers("r", offer{node: true, relayed: true, services: []string{"x.A"}})
	connectAll(t, h, w, selector{})
	wantSpread(t, spread(t, h, selector{}, 10), map[peer.ID]int{"r": 10})
	offering(h, "a", "b")
	connectAll(t, h, w, selector{})
	wantSpread(t, spread(t, h, selector{}, 10), map[peer.ID]int{"a": 5, "b": 5})
	// Another attempt may go over the relay, when the direct ones were tried.
	c := newCall(selector{})
	for range 2 {
		h.pick(c, who1)
	}
	if l, _ := h.pick(c, who1); l.peer.id != "r" {
		t.Errorf("the third attempt went to %s", l.peer.id)
	}
	h.told(probeOf(w, "a"), notServing, 0)
	h.told(probeOf(w, "b"), notServing, 0)
	wantSpread(t, spread(t, h, selector{}, 10), map[peer.ID]int{"r": 10})
	// An instance over a relay is not dialed for nothing.
	h.told(probeOf(w, "a"), serving, 0)
	h.offers("r2", offer{node: true, relayed: true, services: []string{"x.A"}})
	connectAll(t, h, w, selector{})
	if w.dials["r2"] != 0 {
		t.Error("an instance over a relay was dialed beside direct ones")
	}
}

func TestHub_LessBusy(t *testing.T) {
	h, w := newFakeHub()
	offering(h, "a", "b", "c")
	connectAll(t, h, w, selector{})
	// c does not answer: its calls stay in flight.
	count := map[peer.ID]int{}
	for range 3000 {
		l, v := h.pick(newCall(selector{}), who1)
		if v != picked {
			t.Fatal(v)
		}
		count[l.peer.id]++
		if l.peer.id != "c" {
			l.done(true)
		}
	}
	if count["c"] != busyFrom {
		t.Errorf("an instance that does not answer got %d calls, want %d", count["c"], busyFrom)
	}
	// When all are full the calls are spread all the same.
	var links []*link
	for range 3 * 500 {
		l, _ := h.pick(newCall(selector{}), who1)
		links = append(links, l)
	}
	for _, i := range h.snapshot("x.A", "") {
		if i.InFlight < 480 || i.InFlight > 530 {
			t.Errorf("%s has %d calls in flight", i.Peer, i.InFlight)
		}
	}
	for _, l := range links {
		l.done(true)
	}
}

func TestHub_Nearest(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h, w := newFakeHub()
		defer h.close()
		rtt := map[peer.ID]time.Duration{"a": 30 * time.Millisecond, "b": 10 * time.Millisecond, "c": 0, "d": 20 * time.Millisecond}
		h.rtt = func(id peer.ID) time.Duration { return rtt[id] }
		near := selector{nearest: true}
		offering(h, "a", "b", "c", "d")
		connectAll(t, h, w, near)
		wantSpread(t, spread(t, h, near, 100), map[peer.ID]int{"b": 100})
		wantSpread(t, spread(t, h, selector{}, 8), map[peer.ID]int{"a": 2, "b": 2, "c": 2, "d": 2})
		rtt["a"] = time.Millisecond
		time.Sleep(nearEvery)
		wantSpread(t, spread(t, h, near, 100), map[peer.ID]int{"a": 100})
		// The next nearest helps out when the nearest is full, and takes over when that is not fit.
		count := map[peer.ID]int{}
		for range 150 {
			l, _ := h.pick(newCall(near), who1)
			count[l.peer.id]++
		}
		wantSpread(t, count, map[peer.ID]int{"a": fullAt, "b": 50})
		h.told(probeOf(w, "a"), notServing, 0)
		h.told(probeOf(w, "b"), notServing, 0)
		wantSpread(t, spread(t, h, near, 10), map[peer.ID]int{"d": 10})
		// What the channel measured itself counts where nobody knows better.
		h.told(probeOf(w, "c"), unsaid, 5*time.Millisecond)
		h.told(probeOf(w, "c"), serving, 0)
		wantSpread(t, spread(t, h, near, 10), map[peer.ID]int{"c": 10})
		// Another attempt goes to another one.
		c := newCall(near)
		first, _ := h.pick(c, who1)
		if second, _ := h.pick(c, who1); second.peer == first.peer {
			t.Error("the second attempt went to the same instance")
		}
	})
}

func TestHub_CallsWithoutAnInstanceHaveItLookedFor(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h, _ := newFakeHub()
		defer h.close()
		var sought []string
		h.seek = func(name string) { sought = append(sought, name) }
		h.pick(newCall(selector{}), who1)
		if !slices.Equal(sought, []string{"x.A"}) || !h.isWanted("x.A") || h.isWanted("x.B") {
			t.Fatalf("sought: %v", sought)
		}
		h.pick(newCall(selector{peer: "p"}), who1)
		if len(sought) != 1 {
			t.Errorf("sought: %v", sought)
		}
		time.Sleep(h.wait)
		if h.isWanted("x.A") {
			t.Error("it is wanted when no call waits any longer")
		}
		c := newCall(selector{})
		c.patient = true
		for range 3 { // it waits as long as it asks again
			h.pick(c, who1)
			if !h.isWanted("x.A") {
				t.Error("it is not wanted although a call waits")
			}
			time.Sleep(h.wait)
		}
		h.pick(c, who1)
		offering(h, "a")
		if h.isWanted("x.A") {
			t.Error("it is wanted although it is known")
		}
	})
}
