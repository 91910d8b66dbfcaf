package p2p

import (
	"context"
	"iter"
	"sync"
)

// eventBuffer is how many events a reader may be behind before it misses some.
const eventBuffer = 1024

// broadcaster hands every event to every reader, and waits for none.
type broadcaster struct {
	mu      sync.Mutex
	readers map[chan PeerEvent]struct{}
	closed  bool
}

func (b *broadcaster) publish(e PeerEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ch := range b.readers {
		for sent := false; !sent; {
			select {
			case ch <- e:
				sent = true
			default:
				// Full: the oldest goes. Only this goroutine adds, so there is room next, whether we or the reader took it.
				select {
				case <-ch:
				default:
				}
			}
		}
	}
}

// close ends every reader's sequence, after what is still in its buffer.
func (b *broadcaster) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for ch := range b.readers {
		close(ch)
	}
	b.readers = nil
}

// follow returns the events from now on, not from when the sequence is first read.
func (b *broadcaster) follow(ctx context.Context) iter.Seq[PeerEvent] {
	ch := make(chan PeerEvent, eventBuffer)
	b.mu.Lock()
	if b.closed {
		close(ch)
	} else {
		if b.readers == nil {
			b.readers = make(map[chan PeerEvent]struct{})
		}
		b.readers[ch] = struct{}{}
		context.AfterFunc(ctx, func() { b.leave(ch) })
	}
	b.mu.Unlock()
	return func(yield func(PeerEvent) bool) {
		defer b.leave(ch)
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-ch:
				if !ok || !yield(e) {
					return
				}
			}
		}
	}
}

func (b *broadcaster) leave(ch chan PeerEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.readers, ch)
}
