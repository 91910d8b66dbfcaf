package grpcstream

import "testing"

// Whoever closes a peer's connections says so: no call begins on a tunnel that is about to end.
func TestHub_APartedPeerGetsANewLink(t *testing.T) {
	h, w := newFakeHub()
	h.part("a") // unknown: nothing to do
	h.offers("a", offer{node: true, services: []string{"x.A"}})
	pick := func() (*link, verdict) { return h.pick(newCall(selector{peer: "a"}), who1) }
	pick()
	w.upAll()
	old, v := pick()
	if v != picked {
		t.Fatalf("verdict %d", v)
	}
	h.part("a")
	if w.ups[old] {
		t.Error("the old link is still up")
	}
	if _, v := pick(); v == picked {
		t.Error("a call was given a link that had been taken away")
	}
	if w.dials["a"] != 2 {
		t.Errorf("dialed %d times, want twice", w.dials["a"])
	}
	w.upAll()
	if l, v := pick(); v != picked || l == old {
		t.Errorf("after the second dial: link %p, before %p, verdict %d", l, old, v)
	}
	h.down(old, nil) // the wire tells of the old one's end later
	if _, v := pick(); v != picked {
		t.Error("the end of the old link took the new one away")
	}
}

func TestHub_NothingBeginsAfterTheEnd(t *testing.T) {
	h := newHub("x", 0)
	done := make(chan struct{})
	if !h.begin(func() { close(done) }) {
		t.Fatal("nothing begins")
	}
	<-done
	h.close()
	if h.begin(func() { t.Error("it was begun") }) {
		t.Error("it was said to have begun")
	}
	h.work.Wait()
}
