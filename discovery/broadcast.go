package discovery

import (
	"context"
	"iter"
	"sync"
)

// eventBuffer is how many events a slow reader may be behind before it misses the oldest.
const eventBuffer = 1024

// broadcaster hands events to any number of readers and waits for none.
type broadcaster struct {
	mu     sync.Mutex
	subs   map[*subscriber]struct{}
	closed bool
}

type subscriber struct {
	mu     sync.Mutex
	buf    []Event
	closed bool
	wake   chan struct{}
}

func (b *broadcaster) publish(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.push(e)
	}
}

func (b *broadcaster) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for s := range b.subs {
		s.close()
	}
	clear(b.subs)
}

func (b *broadcaster) subscribe(ctx context.Context) iter.Seq[Event] {
	s := &subscriber{wake: make(chan struct{}, 1)}
	b.mu.Lock()
	if b.closed {
		s.closed = true
	} else {
		if b.subs == nil {
			b.subs = make(map[*subscriber]struct{})
		}
		b.subs[s] = struct{}{}
	}
	b.mu.Unlock()
	drop := func() {
		b.mu.Lock()
		delete(b.subs, s)
		b.mu.Unlock()
	}
	stop := context.AfterFunc(ctx, drop)
	return func(yield func(Event) bool) {
		defer stop()
		defer drop()
		for {
			e, ok, closed := s.pop()
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
				case <-s.wake:
				case <-ctx.Done():
					return
				}
			}
		}
	}
}

func (s *subscriber) push(e Event) {
	s.mu.Lock()
	if len(s.buf) >= eventBuffer {
		s.buf = s.buf[1:]
	}
	s.buf = append(s.buf, e)
	s.mu.Unlock()
	s.signal()
}

func (s *subscriber) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
}

func (s *subscriber) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscriber) pop() (e Event, ok, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.buf) == 0 {
		return Event{}, false, s.closed
	}
	e = s.buf[0]
	s.buf[0] = Event{}
	s.buf = s.buf[1:]
	return e, true, s.closed
}
