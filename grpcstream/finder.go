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
	findDials    = 8           // peers that are verified at once, for one service
	findMax      = 64          // peers verified in one search
	findPause    = time.Second // between two searches for a service while calls wait
	findPauseMax = 8 * time.Second
)

// A finder looks for services that nobody known offers. For each name one search runs at a time, whoever waits for it.
type finder struct {
	ctx    context.Context //nolint:containedctx // the life of the channel, which starts work when calls wait
	wg     *sync.WaitGroup
	find   func(ctx context.Context, service string) iter.Seq2[peer.AddrInfo, error]
	dialer *dialer
	hub    *hub
	log    *slog.Logger

	mu       sync.Mutex
	searches map[string]*search
}

// A search is one round of looking for a service. Its error may be read when it is done.
type search struct {
	done chan struct{}
	err  error // the last one that was met
}

// want has a service looked for, again and again with pauses as long as calls wait for it. It does not block and may be
// called under the hub's lock.
func (f *finder) want(service string) { _ = f.search(service) }

// search returns the search for a service that is under way, a new one if need be; nil if nobody looks.
func (f *finder) search(service string) *search {
	if f.find == nil || f.ctx.Err() != nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.searches[service]
	if s == nil {
		s = &search{done: make(chan struct{})}
		f.searches[service] = s
		f.wg.Go(func() { f.run(service, s) })
	}
	return s
}

// run makes one round after the other.
func (f *finder) run(service string, s *search) {
	for pause := findPause; ; pause = min(2*pause, findPauseMax) {
		s.err = f.round(service)
		f.mu.Lock()
		close(s.done)
		delete(f.searches, service)
		f.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-f.ctx.Done():
			return
		}
		f.hub.wakeAll() // those who still wait say so
		if !f.hub.isWanted(service) {
			return
		}
		f.mu.Lock()
		if f.searches[service] != nil { // somebody began another one meanwhile
			f.mu.Unlock()
			return
		}
		s = &search{done: make(chan struct{})}
		f.searches[service] = s
		f.mu.Unlock()
	}
}

// round looks once, and verifies who is found.
func (f *finder) round(service string) (err error) {
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
