package feed_test

import (
	"context"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/lynn9388/p2p/internal/feed"
	"github.com/lynn9388/p2p/internal/virtual"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFeed_ASlowReaderMissesTheOldest(t *testing.T) {
	var f feed.Feed[int]
	events := f.Follow(t.Context())
	for i := range feed.Behind + 10 {
		f.Publish(i)
	}
	f.Close()
	n, first := 0, -1
	for e := range events {
		if n == 0 {
			first = e
		}
		n++
	}
	if n != feed.Behind || first != 10 {
		t.Errorf("%d events, the first is number %d; want %d and 10", n, first, feed.Behind)
	}
}

func TestFeed_EndsWithItsContextAndWhenItIsClosed(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		var f feed.Feed[int]
		ctx, cancel := context.WithCancel(t.Context())
		ended := 0
		read := func(ctx context.Context) {
			events := f.Follow(ctx)
			go func() {
				for range events {
				}
				ended++
			}()
			synctest.Wait()
		}
		read(ctx)
		cancel()
		synctest.Wait()
		if ended != 1 {
			t.Errorf("%d ended with the context", ended)
		}
		read(t.Context())
		f.Close()
		synctest.Wait()
		if ended != 2 {
			t.Errorf("%d ended when it was closed", ended)
		}
		read(t.Context())
		if ended != 3 {
			t.Errorf("%d ended, of which one followed a closed feed", ended)
		}
	})
}

// All readers get all events in order, each from when it began to follow.
func TestFeed_EachReaderHasItsOwn(t *testing.T) {
	var f feed.Feed[int]
	early := f.Follow(t.Context())
	f.Publish(1)
	late := f.Follow(t.Context())
	f.Publish(2)
	for e := range early {
		if e != 1 {
			t.Errorf("the early one got %d first", e)
		}
		break // it is gone, and what comes is not kept for it
	}
	f.Close()
	var got []int
	for e := range late {
		got = append(got, e)
	}
	if len(got) != 1 || got[0] != 2 {
		t.Errorf("the late one got %v", got)
	}
}

func TestChanges_ManyAreOneUntilTheEnd(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		var f feed.Feed[int]
		ctx, cancel := context.WithCancel(t.Context())
		left, stays := f.Changes(ctx), f.Changes(t.Context())
		f.Publish(1)
		f.Publish(2)
		<-left
		<-stays
		cancel()
		synctest.Wait()
		f.Publish(3)
		<-stays
		f.Close()
		if _, more := <-stays; more {
			t.Error("one value more than there were publications between two reads")
		}
		if _, more := <-f.Changes(t.Context()); more {
			t.Error("a closed feed has a change")
		}
		select {
		case _, more := <-left:
			t.Errorf("after its context has ended: a value, %v", more)
		default:
		}
	})
}
