package grpcstream

import (
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A ServiceEvent says that a peer offers a service, or no longer does.
type ServiceEvent struct {
	Peer    peer.ID
	Service string
	Gone    bool // it no longer does, or is no longer connected
}

// Watch returns the services of all connected peers and of the host itself, and then each change, until ctx ends, the
// channel is closed or the loop is left. A slow reader misses what came and went meanwhile, never the outcome. Each
// loop over it starts anew.
func (ch *Channel) Watch(ctx context.Context) iter.Seq[ServiceEvent] {
	return ch.directory.watch(ctx)
}

func (d *directory) watch(ctx context.Context) iter.Seq[ServiceEvent] {
	return func(yield func(ServiceEvent) bool) {
		changed, stop := d.signal()
		defer stop()
		told := map[peer.ID]*entry{}
		for {
			d.mu.Lock()
			now := maps.Clone(d.entries)
			d.mu.Unlock()
			if !tell(told, now, yield) {
				return
			}
			told = now
			select {
			case <-changed:
			case <-ctx.Done():
				return
			case <-d.ended:
				return
			}
		}
	}
}

// signal returns a channel that gets a value after each change, until stop is called.
func (d *directory) signal() (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watchers[c] = struct{}{}
	return c, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.watchers, c)
	}
}

// tell yields what changed between two states of the directory.
func tell(old, now map[peer.ID]*entry, yield func(ServiceEvent) bool) bool {
	for _, id := range slices.Sorted(maps.Keys(old)) {
		if now[id] == nil && !tellDiff(id, old[id].services, nil, yield) {
			return false
		}
	}
	for _, id := range slices.Sorted(maps.Keys(now)) {
		before := &entry{}
		if e := old[id]; e != nil {
			before = e
		}
		if before != now[id] && !tellDiff(id, before.services, now[id].services, yield) {
			return false
		}
	}
	return true
}

// tellDiff yields what changed between two sorted lists of a peer's services.
func tellDiff(id peer.ID, old, now []string, yield func(ServiceEvent) bool) bool {
	for _, name := range old {
		if _, found := slices.BinarySearch(now, name); !found && !yield(ServiceEvent{Peer: id, Service: name, Gone: true}) {
			return false
		}
	}
	for _, name := range now {
		if _, found := slices.BinarySearch(old, name); !found && !yield(ServiceEvent{Peer: id, Service: name}) {
			return false
		}
	}
	return true
}
