package grpcstream

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

const (
	// A tunnel reserves memory for its windows while it has calls: as much as is easily had, and at least the minimum.
	// The default resource manager gives all tunnels of one peer 16 MiB, that is 16 times the minimum.
	reserveMax = 8 << 20
	reserveMin = 1 << 20

	// reserveKeep is how long the memory stays reserved after the last call, so that calls one after the other do not
	// each ask the resource manager.
	reserveKeep = 10 * time.Second
)

// memoryScope is the part of network.StreamScope that a reservation needs.
type memoryScope interface {
	ReserveMemory(size int, prio uint8) error
	ReleaseMemory(size int)
}

// A reservation holds memory of a tunnel at the resource manager while calls are under way.
type reservation struct {
	scope memoryScope // nil: nothing is reserved
	calls atomic.Int64
	held  atomic.Bool
	used  atomic.Bool // since the last look

	mu    sync.Mutex
	size  int
	timer *time.Timer
	ended bool
}

// begin reserves for one more call. After a nil error end must follow.
func (r *reservation) begin() error {
	if r.scope == nil {
		return nil
	}
	r.calls.Add(1)
	if r.held.Load() {
		return nil
	}
	if err := r.reserve(); err != nil {
		r.calls.Add(-1)
		return err
	}
	return nil
}

func (r *reservation) end() {
	if r.scope == nil {
		return
	}
	r.used.Store(true)
	r.calls.Add(-1)
}

func (r *reservation) reserve() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held.Load() || r.ended {
		return nil
	}
	err := error(nil)
	for size := reserveMax; size >= reserveMin; size /= 2 {
		prio := network.ReservationPriorityMedium
		if size == reserveMin {
			prio = network.ReservationPriorityAlways
		}
		if err = r.scope.ReserveMemory(size, prio); err == nil {
			r.size = size
			break
		}
	}
	if err != nil {
		return err
	}
	r.held.Store(true)
	r.used.Store(true)
	if r.timer == nil {
		r.timer = time.AfterFunc(reserveKeep, r.look)
	} else {
		r.timer.Reset(reserveKeep)
	}
	return nil
}

// look gives the memory back when no call used it for a while.
func (r *reservation) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || !r.held.Load() {
		return
	}
	if r.used.Swap(false) {
		r.timer.Reset(reserveKeep)
		return
	}
	// A call that begins now either is seen here or sees that nothing is held.
	r.held.Store(false)
	if r.calls.Load() > 0 {
		r.held.Store(true)
		r.timer.Reset(reserveKeep)
		return
	}
	r.scope.ReleaseMemory(r.size)
	r.size = 0
}

// close ends the watch; the scope of a stream gives everything back with the stream.
func (r *reservation) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	if r.timer != nil {
		r.timer.Stop()
	}
}
