// Package feed hands events to any number of readers.
package feed

import (
	"context"
	"iter"
	"sync"
)

// Behind is how many events a slow reader may be behind before it misses the oldest.
const Behind = 1024

// A Feed hands each event to all who follow it, and waits for none. The zero value is ready to use; its methods may be
// called concurrently.
type Feed[E any] struct {
	mu      sync.Mutex
	readers map[*reader[E]]struct{}
	changes map[chan struct{}]struct{}
	closed  bool
}

type reader[E any] struct {
	mu     sync.Mutex
	buf    []E
	closed bool
	wake   chan struct{}
}

// Publish hands e to those who follow.
func (f *Feed[E]) Publish(e E) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for r := range f.readers {
		r.push(e)
	}
	for c := range f.changes {
		wake(c)
	}
}

// Close ends all sequences, each after the events that it still has, and those that Follow returns from now on.
func (f *Feed[E]) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for r := range f.readers {
		r.close()
	}
	clear(f.readers)
	for c := range f.changes {
		close(c)
	}
	clear(f.changes)
}

// Changes returns a channel that holds a value after something was published, one however much it was, until ctx ends.
// It is closed when the feed is.
func (f *Feed[E]) Changes(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		close(c)
		return c
	}
	if f.changes == nil {
		f.changes = make(map[chan struct{}]struct{})
	}
	f.changes[c] = struct{}{}
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.changes, c)
	})
	return c
}

// Follow returns the events from now on, not from when the sequence is first read, until ctx ends, the feed is closed
// or the loop is left. It is for one loop. A reader more than [Behind] events behind misses the oldest.
func (f *Feed[E]) Follow(ctx context.Context) iter.Seq[E] {
	r := &reader[E]{wake: make(chan struct{}, 1)}
	f.mu.Lock()
	if f.closed {
		r.closed = true
	} else {
		if f.readers == nil {
			f.readers = make(map[*reader[E]]struct{})
		}
		f.readers[r] = struct{}{}
	}
	f.mu.Unlock()
	leave := func() {
		f.mu.Lock()
		delete(f.readers, r)
		f.mu.Unlock()
	}
	stop := context.AfterFunc(ctx, leave)
	return func(yield func(E) bool) {
		defer stop()
		defer leave()
		for {
			e, ok, closed := r.pop()
			switch {
			case ctx.Err() != nil:
				return
			case ok:
				if !yield(e) {
					return
				}
			case closed:
				return
			default:
				select {
				case <-r.wake:
				case <-ctx.Done():
					return
				}
			}
		}
	}
}

func (r *reader[E]) push(e E) {
	r.mu.Lock()
	if len(r.buf) >= Behind {
		r.buf = r.buf[1:]
	}
	r.buf = append(r.buf, e)
	r.mu.Unlock()
	wake(r.wake)
}

func (r *reader[E]) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	wake(r.wake)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (r *reader[E]) pop() (e E, ok, closed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.buf) == 0 {
		return e, false, r.closed
	}
	var none E
	e, r.buf[0] = r.buf[0], none
	r.buf = r.buf[1:]
	return e, true, r.closed
}
