package broadcast

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// window is how far, in messages, one may arrive behind a later one of its author.
	window = 4096
	// maxAuthors bounds the authors that a topic remembers, at about 600 bytes each.
	maxAuthors = 4096
	// An author is allowed more than it may publish: what was held up for some seconds comes at once.
	heardRate  = 2 * Rate
	heardBurst = 8 * Rate
)

// verdict is what the history of an author says about a message.
type verdict int

const (
	fresh verdict = iota
	repeated
	old   // or from the future
	early // from before this node listened
	tooFast
)

// history tells new messages from repeated ones, by a sliding window of sequence numbers for each author, within
// [MaxAge]. What is older is refused by its age. An author that is not in the table, because it is new or was put out by
// others, is heard from the floor on, so that forgetting an author never lets an old message of its in.
type history struct {
	mu      sync.Mutex
	authors map[peer.ID]*author
	floor   time.Time
}

type author struct {
	session uint64
	top     uint64              // the highest sequence number heard
	heard   [window / 64]uint64 // one bit for each number in (top-window, top], at number mod window
	newest  time.Time           // by the author's clock
	bucket  bucket
}

func newHistory(now time.Time) *history {
	return &history{authors: map[peer.ID]*author{}, floor: now}
}

// judge decides on a message and remembers it when it is fresh.
func (h *history) judge(from peer.ID, e *Envelope, size int, now time.Time) verdict {
	at := e.stamp()
	if d := now.Sub(at); d > MaxAge || d < -MaxAge {
		return old
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.authors[from]
	if a == nil {
		if at.Before(h.floor) {
			return early
		}
		a = h.admit(from, now)
	}
	if now.Sub(a.newest) > MaxAge { // nothing of before can come again, and the author's clock may have been put back
		a.session = 0
	}
	switch {
	case a.repeats(e):
		return repeated
	case !a.bucket.take(float64(cost(size)), now):
		return tooFast
	}
	a.mark(e.GetSession(), e.GetSequence())
	if at.After(a.newest) {
		a.newest = at
	}
	return fresh
}

// admit makes room for an author.
func (h *history) admit(from peer.ID, now time.Time) *author {
	if len(h.authors) >= maxAuthors {
		h.evict(now)
	}
	a := &author{bucket: bucket{rate: heardRate, burst: heardBurst, tokens: heardBurst, at: now}}
	h.authors[from] = a
	return a
}

// evict forgets the eighth of the authors that have been silent for longest.
func (h *history) evict(now time.Time) {
	quiet := slices.SortedFunc(maps.Keys(h.authors), func(a, b peer.ID) int {
		return h.authors[a].newest.Compare(h.authors[b].newest)
	})
	for _, id := range quiet[:len(quiet)/8] {
		if at := h.authors[id].newest; !at.Before(h.floor) {
			h.floor = at.Add(1)
		}
		delete(h.authors, id)
	}
	if h.floor.After(now) { // authors whose clocks are ahead do not silence others
		h.floor = now
	}
}

func (a *author) repeats(e *Envelope) bool {
	seq := e.GetSequence()
	switch {
	case e.GetSession() != a.session:
		return e.GetSession() < a.session
	case seq > a.top:
		return false
	case a.top-seq >= window:
		return true
	}
	return a.heard[seq%window/64]&(1<<(seq%64)) != 0
}

func (a *author) mark(session, seq uint64) {
	if session != a.session {
		a.session, a.top, a.heard = session, 0, [window / 64]uint64{}
	}
	if seq > a.top {
		if seq-a.top >= window {
			a.heard = [window / 64]uint64{}
		} else {
			for s := a.top + 1; s < seq; s++ {
				a.heard[s%window/64] &^= 1 << (s % 64)
			}
		}
		a.top = seq
	}
	a.heard[seq%window/64] |= 1 << (seq % 64)
}

// bucket is a token bucket. It may go below zero by force only.
type bucket struct {
	rate, burst, tokens float64
	at                  time.Time
}

func (b *bucket) fill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(b.burst, b.tokens+d.Seconds()*b.rate)
		b.at = now
	}
}

// take takes n tokens if they are there.
func (b *bucket) take(n float64, now time.Time) bool {
	b.fill(now)
	if b.tokens < n {
		return false
	}
	b.tokens -= n
	return true
}

// charge takes n tokens whether they are there or not.
func (b *bucket) charge(n float64, now time.Time) {
	b.fill(now)
	b.tokens -= n
}

// wait is how long until no token is owed.
func (b *bucket) wait(now time.Time) time.Duration {
	b.fill(now)
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens/b.rate*float64(time.Second)) + time.Millisecond
}
