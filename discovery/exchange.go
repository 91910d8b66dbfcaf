package discovery

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// askTimeout bounds one question.
	askTimeout = 3 * time.Second
	// askAtOnce bounds the questions under way.
	askAtOnce = 4
	// askAgain is how long a peer is not asked again.
	askAgain = 3 * time.Second
	// askRelay is how soon a relay is asked again, and askRelays how often in a row, each time after twice as long: nodes
	// that start together, or have lost it together, come to it within a moment.
	askRelay  = 200 * time.Millisecond
	askRelays = 5
	// askHungry and askSated are the shortest and the longest time from one question to the next. It doubles while
	// nothing happens among the peers, and is the longest one above the low mark.
	askHungry = time.Second
	askSated  = time.Minute
)

// Ask asks a connected peer for its neighbors and returns their signed records. It must respect ctx.
type Ask func(ctx context.Context, p peer.ID) ([][]byte, error)

// Exchange is a [Source] that asks the neighbors for theirs: each peer when it connects, unless enough are known, and
// one at random each minute, or sooner while the keeper has fewer neighbors than its low mark and something happens
// among the peers. A relay that the node depends on knows whoever else does, so it is asked several times when it
// connects.
type Exchange struct {
	k   *Keeper
	ask Ask
}

// NewExchange returns the exchange for k's neighbors.
func NewExchange(k *Keeper, ask Ask) *Exchange { return &Exchange{k: k, ask: ask} }

// String returns "exchange".
func (x *Exchange) String() string { return "exchange" }

// Run asks until ctx ends. What it learns goes to the keeper as signed records, not to found.
func (x *Exchange) Run(ctx context.Context, _ corehost.Host, _ func(peer.AddrInfo)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := questions{x: x, asked: make(map[peer.ID]time.Time), slots: make(chan struct{}, askAtOnce)}
	defer q.wg.Wait()
	events := x.k.Events(ctx)
	news := make(chan struct{}, 1)
	q.wg.Go(func() {
		for e := range events {
			if e.Kind == PeerConnected && !x.k.sated() {
				q.put(ctx, e.Peer.ID)
				if x.k.cfg.Keep != nil && x.k.cfg.Keep(e.Peer.ID) {
					q.wg.Go(func() { q.press(ctx, e.Peer.ID) })
				}
			}
			signal(news)
		}
	})
	for _, p := range x.k.Neighbors() {
		q.put(ctx, p)
	}
	pause, last := askHungry, time.Now()
	for {
		wait := time.NewTimer(time.Until(last.Add(pause*3/4 + rand.N(pause/2))))
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-news:
			wait.Stop()
			if len(x.k.Neighbors()) < x.k.core.cfg.Low {
				pause = askHungry
			}
			continue
		case <-wait.C:
		}
		last, pause = time.Now(), min(2*pause, askSated)
		neighbors := x.k.Neighbors()
		if len(neighbors) >= x.k.core.cfg.Low {
			pause = askSated
		}
		if len(neighbors) > 0 {
			q.put(ctx, neighbors[rand.IntN(len(neighbors))])
		}
	}
}

// questions are those of one run.
type questions struct {
	x     *Exchange
	wg    sync.WaitGroup
	slots chan struct{}

	mu    sync.Mutex
	asked map[peer.ID]time.Time
}

// put asks p in the background, unless it was asked a moment ago.
func (q *questions) put(ctx context.Context, p peer.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for o, last := range q.asked {
		if now.Sub(last) >= askAgain {
			delete(q.asked, o)
		}
	}
	if _, ok := q.asked[p]; ok {
		return
	}
	q.asked[p] = now
	q.wg.Go(func() { q.ask(ctx, p) })
}

// press asks a relay again until the node has neighbors enough.
func (q *questions) press(ctx context.Context, p peer.ID) {
	for i := range askRelays {
		select {
		case <-ctx.Done():
			return
		case <-time.After(askRelay << i):
		}
		if at, ok := q.x.k.Peer(p); !ok || !at.Member || len(q.x.k.Neighbors()) >= q.x.k.core.cfg.Low {
			return
		}
		q.ask(ctx, p)
	}
}

func (q *questions) ask(ctx context.Context, p peer.ID) {
	select {
	case q.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-q.slots }()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	k := q.x.k
	from := k.From(q.x.String(), p) // before: afterwards it may be gone
	records, err := q.x.ask(ctx, p)
	if err != nil {
		k.log.Debug("cannot ask for neighbors", "peer", p, "err", oneLine(err))
		return
	}
	n := k.FoundRecords(records, from)
	k.log.Debug("asked for neighbors", "peer", p, "records", len(records), "accepted", n)
}
