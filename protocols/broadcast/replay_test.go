package broadcast

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func envelope(session, seq uint64, at time.Time) *Envelope {
	return &Envelope{Session: session, Sequence: seq, Time: at.UnixNano()}
}

func TestHistory_JudgesByAgeSessionAndSequence(t *testing.T) {
	start := time.Unix(1e9, 0)
	h := newHistory(start)
	for i, tc := range []struct {
		what         string
		session, seq uint64
		at, now      time.Duration
		want         verdict
	}{
		{"the first", 1, 5, time.Second, time.Second, fresh},
		{"again", 1, 5, time.Second, 2 * time.Second, repeated},
		{"again after 119 s", 1, 5, time.Second, 120 * time.Second, repeated},
		{"again after 121 s", 1, 5, time.Second, 122 * time.Second, old},
		{"again after 6 h", 1, 5, time.Second, 6 * time.Hour, old},
		{"an earlier one, overtaken", 1, 3, time.Second, 20 * time.Second, fresh},
		{"an earlier one, again", 1, 3, time.Second, 20 * time.Second, repeated},
		{"far ahead", 1, 5 + window, 20 * time.Second, 20 * time.Second, fresh},
		{"out of the window", 1, 5, 20 * time.Second, 20 * time.Second, repeated},
		{"the last within the window", 1, 6, 20 * time.Second, 20 * time.Second, fresh},
		{"of an earlier session", 0, 9000, 21 * time.Second, 21 * time.Second, repeated},
		{"of a later session", 2, 1, 21 * time.Second, 21 * time.Second, fresh},
		{"of the session before", 1, 7000, 21 * time.Second, 21 * time.Second, repeated},
		{"a clock behind", 2, 2, 0, 119 * time.Second, fresh},
		{"a clock ahead", 2, 3, 239 * time.Second, 120 * time.Second, fresh},
		{"a clock too far ahead", 2, 4, 300 * time.Second, 120 * time.Second, old},
		{"a clock put back meanwhile", 1, 1, time.Hour, time.Hour, fresh},
	} {
		if got := h.judge("a", envelope(tc.session, tc.seq, start.Add(tc.at)), 100, start.Add(tc.now)); got != tc.want {
			t.Errorf("%d, %s: %d, want %d", i, tc.what, got, tc.want)
		}
	}
	if got := h.judge("b", envelope(1, 1, start.Add(time.Hour-time.Second)), 1, start.Add(time.Hour)); got != fresh {
		t.Errorf("another author: %d", got)
	}
	late := newHistory(start.Add(time.Hour)) // the same node after a restart
	if got := late.judge("b", envelope(1, 1, start.Add(time.Hour-time.Second)), 1, start.Add(time.Hour)); got != early {
		t.Errorf("from before the restart: %d", got)
	}
}

// What was heard is never heard again, whatever comes in between, and what is within the window and the limits is heard.
func TestHistory_RandomOrder(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // replayable
		now := time.Unix(1e9, 0)
		h := newHistory(now)
		done, top := map[uint64]bool{}, uint64(0)
		for range 20_000 {
			now = now.Add(10 * time.Millisecond)
			seq := uint64(max(1, int64(top)+r.Int64N(2*window)-2*window+40))
			want := fresh
			if done[seq] || top >= seq+window {
				want = repeated
			}
			if got := h.judge("a", envelope(1, seq, now), 10, now); got != want {
				t.Fatalf("seed %d: sequence %d after %d: %d, want %d", seed, seq, top, got, want)
			}
			if want == fresh {
				done[seq], top = true, max(top, seq)
			}
		}
	}
}

func TestHistory_BoundsAuthorsWithoutLettingTheOldIn(t *testing.T) {
	now := time.Unix(1e9, 0)
	h := newHistory(now)
	now = now.Add(time.Second)
	first := envelope(1, 1, now)
	if got := h.judge("victim", first, 1, now); got != fresh {
		t.Fatalf("the first: %d", got)
	}
	for i := range 3 * maxAuthors {
		now = now.Add(time.Millisecond)
		h.judge(peer.ID(strconv.Itoa(i)), envelope(1, 1, now.Add(MaxAge/2)), 1, now)
	}
	if n := len(h.authors); n > maxAuthors {
		t.Errorf("%d authors", n)
	}
	if got := h.judge("victim", first, 1, now); got != early {
		t.Errorf("a forgotten author's message is %d again", got)
	}
	now = now.Add(time.Millisecond)
	if got := h.judge("newcomer", envelope(1, 1, now), 1, now); got != fresh {
		t.Errorf("a newcomer's message is %d", got)
	}
}

func TestHistory_BoundsTheRate(t *testing.T) {
	now := time.Unix(1e9, 0)
	h := newHistory(now)
	heard := 0
	for i := range 20_000 { // 10,000 a second
		now = now.Add(100 * time.Microsecond)
		if h.judge("a", envelope(1, uint64(i+1), now), 1000, now) == fresh {
			heard++
		}
	}
	if heard > heardBurst+2*heardRate+1 {
		t.Errorf("%d heard in 2 s", heard)
	}
	if got := h.judge("b", envelope(1, 1, now), MaxMessage, now); got != fresh {
		t.Errorf("another author: %d", got)
	}
}

func TestHistory_AMillionMessagesTakeNoMoreRoom(t *testing.T) {
	now := time.Unix(1e9, 0)
	h := newHistory(now)
	for i := range 1_000_000 {
		now = now.Add(5 * time.Millisecond)
		if got := h.judge("a", envelope(1, uint64(i+1), now), 10, now); got != fresh {
			t.Fatalf("message %d: %d", i, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		now = now.Add(5 * time.Millisecond)
		h.judge("a", envelope(2, 1, now), 10, now)
	}); n > 1 || len(h.authors) != 1 { // the envelope of the test
		t.Errorf("%v allocations, %d authors", n, len(h.authors))
	}
}
