package grpcstream

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram has eight buckets for each doubling of a duration, so that a bucket's end is at most an eighth above what
// it holds, from a microsecond to a minute.
const (
	bucketBits   = 3
	shortestBits = 10 // durations below 2^10 ns share a bucket
	longestBits  = 36 // and so do those of 2^36 ns and more
	bucketCount  = (longestBits-shortestBits)<<bucketBits + 2
)

// histogram counts durations. It may be used concurrently, and the zero value is an empty one.
type histogram struct {
	buckets [bucketCount]atomic.Uint64
	max     atomic.Int64
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(d)].Add(1)
	for {
		m := h.max.Load()
		if int64(d) <= m || h.max.CompareAndSwap(m, int64(d)) {
			return
		}
	}
}

func (h *histogram) longest() time.Duration { return time.Duration(h.max.Load()) }

// quantiles returns, for each of some ascending shares of all, the time that so many stayed within.
func (h *histogram) quantiles(shares ...float64) []time.Duration {
	var counts [bucketCount]uint64
	total := uint64(0)
	for i := range counts {
		counts[i] = h.buckets[i].Load()
		total += counts[i]
	}
	out := make([]time.Duration, len(shares))
	seen, bucket := uint64(0), -1
	for i, share := range shares {
		for want := uint64(math.Ceil(share * float64(total))); seen < want; {
			bucket++
			seen += counts[bucket]
		}
		if bucket >= 0 {
			out[i] = min(bucketEnd(bucket), h.longest())
		}
	}
	return out
}

// bucketOf returns the bucket that holds d.
func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	doublings := bits.Len64(n) - 1 - shortestBits
	switch {
	case doublings < 0:
		return 0
	case doublings >= longestBits-shortestBits:
		return bucketCount - 1
	}
	within := n >> (doublings + shortestBits - bucketBits) & (1<<bucketBits - 1)
	return doublings<<bucketBits + int(within) + 1
}

// bucketEnd returns the longest duration that a bucket holds.
func bucketEnd(bucket int) time.Duration {
	switch bucket {
	case 0:
		return 1<<shortestBits - 1
	case bucketCount - 1:
		return math.MaxInt64
	}
	doublings, within := (bucket-1)>>bucketBits, (bucket-1)&(1<<bucketBits-1)
	return time.Duration(1<<bucketBits+within+1)<<(doublings+shortestBits-bucketBits) - 1
}
