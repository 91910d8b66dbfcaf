package reach

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// The goroutine of an attempt may come to run after that of the next, which it must not end: nobody would say how that one
// ended, and none would be made after it.
func TestUntil_ALateStartDoesNotEndTheNextAttempt(t *testing.T) {
	p := newID(t)
	c := newBench(t, 0).core
	c.peers[p] = &target{peer: p, id: 2}
	j := &job{Reach: &Reach{core: c, ends: map[peer.ID]end{}}}
	second, stopSecond := j.until(t.Context(), p, 2)
	first, stopFirst := j.until(t.Context(), p, 1)
	if first.Err() == nil || second.Err() != nil {
		t.Errorf("the first: %v, the second: %v", first.Err(), second.Err())
	}
	stopFirst()
	if second.Err() != nil {
		t.Error("the end of the first ends the second")
	}
	c.peers[p].id = 3
	third, stopThird := j.until(t.Context(), p, 3)
	if second.Err() == nil || third.Err() != nil {
		t.Errorf("the second: %v, the third: %v", second.Err(), third.Err())
	}
	stopSecond()
	stopThird()
	if len(j.ends) != 0 {
		t.Errorf("%d left", len(j.ends))
	}
}
