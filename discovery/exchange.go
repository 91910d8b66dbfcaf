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
	// askHungry and askSated are the shortest and the longest time from one question to the next. It doubles while
	// nothing happens among the peers, and is the longest one above the low mark.
	askHungry = time.Second
	askSated  = time.Minute
)

// Ask asks a connected peer for its neighbors and returns their signed records. It must respect ctx.
type Ask func(ctx context.Context, p peer.ID) ([][]byte, error)

// Exchange is a [Source] that asks the neighbors for theirs: each peer when it connects, and one at random each minute,
// or sooner while the keeper has fewer neighbors than its low mark and something happens among the peers.
type Exchange struct {
	k   *Keeper
	ask Ask
}

// NewExchange returns the exchange for k's neighbors.
func NewExchange(k *Keeper, ask Ask) *Exchange { return &Exchange{k: k, ask: ask} }

// String returns "exchange".
func (x *Exchange) String() string { return "exchange" }

// Run asks until ctx ends. What it learns goes to the keeper as signed records, not to found.
func (x *Exchange) Run(ctx context.Context, h corehost.Host, _ func(peer.AddrInfo)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	events := x.k.Events(ctx)
	asked := make(map[peer.ID]time.Time)
	var mu sync.Mutex
	slots := make(chan struct{}, askAtOnce)
	question := func(p peer.ID) {
		mu.Lock()
		now := time.Now()
		if last, ok := asked[p]; ok && now.Sub(last) < askAgain {
			mu.Unlock()
			return
		}
		for q, last := range asked {
			if now.Sub(last) >= askAgain {
				delete(asked, q)
			}
		}
		asked[p] = now
		mu.Unlock()
		wg.Go(func() {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			defer func() { <-slots }()
			actx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			scope := ScopeTo(h.Network(), p) // before: afterwards it may be gone
			records, err := x.ask(actx, p)
			if err != nil {
				x.k.log.Debug("cannot ask for neighbors", "peer", p, "err", oneLine(err))
				return
			}
			n := x.k.FoundRecords(records, Origin{Source: x.String(), Scope: scope})
			x.k.log.Debug("asked for neighbors", "peer", p, "records", len(records), "accepted", n)
		})
	}
	news := make(chan struct{}, 1)
	wg.Go(func() {
		for e := range events {
			if e.Kind == PeerConnected {
				question(e.Peer.ID)
			}
			select {
			case news <- struct{}{}:
			default:
			}
		}
	})
	for _, p := range x.k.Neighbors() {
		question(p)
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
			question(neighbors[rand.IntN(len(neighbors))])
		}
	}
}
