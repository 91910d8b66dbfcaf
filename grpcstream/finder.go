package grpcstream

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/internal/safetext"
)

const (
	findDials    = 8               // peers that are verified at once, for one service
	findMax      = 64              // peers verified in one search
	findPause    = time.Second     // between two searches for a service while calls wait
	findPauseMax = 4 * time.Second // less than a call waits
)

// A finder looks for services that nobody known offers. For each name one search runs at a time, whoever waits for it.
type finder struct {
	ctx    context.Context //nolint:containedctx // the life of the channel, which starts work when calls wait
	wg     *sync.WaitGroup
	find   func(ctx context.Context, service string) iter.Seq2[peer.AddrInfo, error]
	dialer *dialer
	hub    *hub
	log    *slog.Logger

	mu      sync.Mutex
	lookups map[string]*lookup
}

// A lookup is the work of looking for one service, from when somebody wants it until nobody does.
type lookup struct {
	round  *round        // under way or, in a pause, the next one
	pauses bool          // between two rounds
	now    chan struct{} // ends the pause
}

// A round is one search for a service. Its error may be read when it is done.
type round struct {
	done chan struct{}
	err  error // the last one that was met
}

func newRound() *round { return &round{done: make(chan struct{})} }

// want has a service looked for, again and again with pauses as long as calls wait for it. It does not block and may be
// called under the hub's lock.
func (f *finder) want(service string) { f.look(service, false) }

// look returns the search for a service that is under way, or a new one; nil if nobody looks. In a pause that one begins
// at once if it is urgent.
func (f *finder) look(service string, urgent bool) *round {
	if f.find == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() != nil {
		return nil
	}
	l := f.lookups[service]
	if l == nil {
		l = &lookup{round: newRound(), now: make(chan struct{}, 1)}
		f.lookups[service] = l
		f.wg.Go(func() { f.run(service, l) })
	}
	if urgent && l.pauses {
		select {
		case l.now <- struct{}{}:
		default:
		}
	}
	return l.round
}

// close begins no search any longer, and ends those under way, for which others wait.
func (f *finder) close(cancel context.CancelFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	cancel()
}

// run makes one round after the other.
func (f *finder) run(service string, l *lookup) {
	for pause := findPause; ; pause = min(2*pause, findPauseMax) {
		r := l.round // changed here only
		r.err = f.search(service)
		f.mu.Lock()
		l.round, l.pauses = newRound(), true
		f.mu.Unlock()
		close(r.done)
		urgent := false
		select {
		case <-time.After(pause):
		case <-l.now:
			urgent = true
		case <-f.ctx.Done():
			return
		}
		f.hub.wakeAll() // calls that wait without end say so
		wanted := urgent || f.hub.isWanted(service)
		f.mu.Lock()
		l.pauses = false
		select {
		case <-l.now:
			wanted = true
		default:
		}
		if !wanted {
			delete(f.lookups, service)
			f.mu.Unlock()
			if f.hub.isWanted(service) { // since just now, by one who found this search still there
				f.want(service)
			}
			return
		}
		f.mu.Unlock()
	}
}

// search looks once, and verifies who is found.
func (f *finder) search(service string) (err error) {
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	slot := make(chan struct{}, findDials)
	asked := map[peer.ID]bool{}
	for info, e := range f.find(ctx, service) {
		if e != nil {
			f.log.Debug("grpcstream: looking for a service", "service", safetext.Clean(service), "err", safetext.Clean(e.Error()))
			err = e
			continue
		}
		if info.ID == f.dialer.host.ID() || asked[info.ID] || f.dialer.directory.lookup(info.ID) != nil {
			continue // what it offers is known
		}
		asked[info.ID] = true
		select {
		case slot <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		wg.Go(func() {
			defer func() { <-slot }()
			f.verify(ctx, service, info)
		})
		if len(asked) == findMax {
			return nil
		}
	}
	return err
}

// verify connects to a peer and waits until it has said what it offers.
func (f *finder) verify(ctx context.Context, service string, info peer.AddrInfo) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	changed, stop := f.dialer.directory.signal()
	defer stop()
	if err := f.dialer.connect(ctx, info.ID, info.Addrs); err != nil {
		f.log.Debug("grpcstream: an instance that was found cannot be reached", "peer", info.ID, "service", safetext.Clean(service), "err", oneLine(err))
		return
	}
	for f.dialer.directory.settled(info.ID) == nil {
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
