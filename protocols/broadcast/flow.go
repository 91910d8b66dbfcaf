package broadcast

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// congested is how many RPCs wait for a peer when Publish begins to wait, too: far from those that GossipSub drops.
	congested = outQueue / 8
	// stuckAfter is how long a peer may take nothing before Publish no longer waits for it.
	stuckAfter = time.Second
)

// flow knows how much waits to be sent to each neighbor.
type flow struct {
	mu    sync.Mutex
	peers map[peer.ID]*queue
	moved chan struct{} // closed when a queue is no longer congested
}

type queue struct {
	waiting int // below 0 for moments: GossipSub may tell that an RPC was sent before it tells that it was queued
	moved   time.Time
}

func newFlow() *flow { return &flow{peers: map[peer.ID]*queue{}, moved: make(chan struct{})} }

func (f *flow) queued(p peer.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := f.peers[p]
	if q == nil {
		q = &queue{}
		f.peers[p] = q
	}
	if q.waiting++; q.waiting == 1 {
		q.moved = time.Now()
	}
}

func (f *flow) sent(p peer.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := f.peers[p]
	if q == nil {
		return
	}
	q.waiting--
	q.moved = time.Now()
	if q.waiting == congested-1 {
		f.wake()
	}
}

func (f *flow) gone(p peer.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.peers, p)
	f.wake()
}

func (f *flow) wake() {
	close(f.moved)
	f.moved = make(chan struct{})
}

// full tells whether one of the peers is congested and moving, or all of them are stuck. It returns what to wait for.
func (f *flow) full(peers []peer.ID, now time.Time) (bool, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	stuck := 0
	for _, p := range peers {
		switch q := f.peers[p]; {
		case q == nil || q.waiting < congested:
		case now.Sub(q.moved) < stuckAfter:
			return true, f.moved
		default:
			stuck++
		}
	}
	return stuck > 0 && stuck == len(peers), f.moved
}

// wait returns when a message can be sent to the peers, who are asked for again each time: when none of them that takes
// anything at all has much waiting.
func (f *flow) wait(ctx context.Context, peers func() []peer.ID) error {
	for {
		full, moved := f.full(peers(), time.Now())
		if !full {
			return nil
		}
		t := time.NewTimer(stuckAfter / 4)
		select {
		case <-moved:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
