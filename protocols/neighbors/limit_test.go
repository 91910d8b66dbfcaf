package neighbors

import (
	"strconv"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/internal/virtual"
)

func TestLimits_MemoryIsBounded(t *testing.T) {
	l := newLimits(time.Second, 1)
	for i := range 10 * maxBuckets {
		if !l.allow(peer.ID(strconv.Itoa(i))) {
			t.Fatalf("asker %d is refused its first call", i)
		}
	}
	if len(l.buckets) != maxBuckets || l.order.Len() != maxBuckets {
		t.Errorf("%d buckets, %d in order, want %d", len(l.buckets), l.order.Len(), maxBuckets)
	}
}

func TestLimits_ForgetsWhoAskedLongestAgo(t *testing.T) {
	virtual.Test(t, func(t *testing.T) { // the clock stands still: no bucket fills up again
		l := newLimits(time.Second, 1)
		l.allow("first")
		for i := range maxBuckets - 1 {
			l.allow(peer.ID(strconv.Itoa(i)))
		}
		if l.allow("first") {
			t.Error("allowed twice at once")
		}
		l.allow("one more") // forgets "0", the oldest since "first" has asked again
		if l.allow("first") {
			t.Error("an asker that just asked was forgotten")
		}
		if !l.allow("0") {
			t.Error("the asker that asked longest ago was not forgotten")
		}
	})
}
