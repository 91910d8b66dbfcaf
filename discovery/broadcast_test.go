package discovery

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestBroadcaster_SlowReaderMissesTheOldest(t *testing.T) {
	var b broadcaster
	events := b.subscribe(t.Context())
	for i := range eventBuffer + 10 {
		b.publish(Event{Peer: Peer{RTT: time.Duration(i)}})
	}
	b.close()
	n, first := 0, time.Duration(-1)
	for e := range events {
		if n == 0 {
			first = e.Peer.RTT
		}
		n++
	}
	if n != eventBuffer || first != 10 {
		t.Errorf("%d events, the first is number %d; want %d and 10", n, first, eventBuffer)
	}
}

func TestBroadcaster_EndsWithItsContextAndWithTheKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b broadcaster
		ctx, cancel := context.WithCancel(t.Context())
		ended := 0
		read := func(ctx context.Context) {
			events := b.subscribe(ctx)
			go func() {
				for range events {
				}
				ended++
			}()
		}
		read(ctx)
		synctest.Wait()
		cancel()
		synctest.Wait()
		if ended != 1 || len(b.subs) != 0 {
			t.Errorf("after the context: %d ended, %d left", ended, len(b.subs))
		}
		read(t.Context())
		b.close()
		synctest.Wait()
		read(t.Context())
		synctest.Wait()
		if ended != 3 {
			t.Errorf("%d ended, want 3", ended)
		}
	})
}

func TestBroadcaster_BreakLeavesNothing(t *testing.T) {
	var b broadcaster
	events := b.subscribe(t.Context())
	b.publish(Event{Peer: Peer{ID: peer.ID("a")}})
	for e := range events {
		if e.Peer.ID != "a" {
			t.Errorf("got %v", e)
		}
		break
	}
	if len(b.subs) != 0 {
		t.Error("the reader is still there")
	}
}
