package grpcstream

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestHistogram_BucketsAreInOrderAndNarrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(1<<shortestBits, 1<<longestBits-1).Draw(t, "d"))
		b := bucketOf(d)
		end := bucketEnd(b)
		if d > end || d <= bucketEnd(b-1) {
			t.Fatalf("%d is in bucket %d, which holds %d to %d", d, b, bucketEnd(b-1)+1, end)
		}
		if end-d > d/8 {
			t.Fatalf("%d counts as %d", d, end)
		}
	})
}

func TestHistogram_Ends(t *testing.T) {
	for d, want := range map[time.Duration]int{
		math.MinInt64: 0, 0: 0, 1<<shortestBits - 1: 0, 1 << shortestBits: 1,
		1<<longestBits - 1: bucketCount - 2, 1 << longestBits: bucketCount - 1, math.MaxInt64: bucketCount - 1,
	} {
		if got := bucketOf(d); got != want {
			t.Errorf("%d is in bucket %d, want %d", d, got, want)
		}
	}
}

// Each quantile is at least the true one, and at most an eighth more, or a microsecond.
func TestHistogram_Quantiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Int64Range(0, 1<<longestBits-1), 1, 200).Draw(t, "all")
		var h histogram
		for _, d := range all {
			h.add(time.Duration(d))
		}
		slices.Sort(all)
		shares := []float64{0.5, 0.9, 0.99, 1}
		for i, got := range h.quantiles(shares...) {
			want := time.Duration(all[int(math.Ceil(shares[i]*float64(len(all))))-1])
			if got < want || got > want+max(want/8, 1<<shortestBits) {
				t.Fatalf("%v of %v is %v, want %v", shares[i], all, got, want)
			}
		}
		if got := h.longest(); got != time.Duration(all[len(all)-1]) {
			t.Fatalf("the longest of %v is %v", all, got)
		}
	})
}

func TestHistogram_Empty(t *testing.T) {
	var h histogram
	if diff := cmp.Diff([]time.Duration{0, 0}, h.quantiles(0.5, 1)); diff != "" || h.longest() != 0 {
		t.Error(diff, h.longest())
	}
}
