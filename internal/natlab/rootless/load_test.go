package rootless_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/host/hosttest"
)

// record is what became of calls at a steady rate.
type record struct {
	made     int
	failed   []failure
	answered []time.Time
}

type failure struct {
	begun time.Time
	err   error
}

// longestGap is the longest time without an answer.
func (r record) longestGap() (gap time.Duration) {
	slices.SortFunc(r.answered, time.Time.Compare)
	for i := 1; i < len(r.answered); i++ {
		gap = max(gap, r.answered[i].Sub(r.answered[i-1]))
	}
	return gap
}

// steadyCalls makes 50 calls a second until stop is called.
func (w *wan) steadyCalls(from, to *p2p.Node, opts ...grpc.CallOption) (stop func() record) {
	var mu sync.Mutex
	var r record
	var wg sync.WaitGroup
	end := make(chan struct{})
	client := pb.NewGreeterServiceClient(from.Peer(to.ID().String()))
	one := func() {
		ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
		defer cancel()
		begun := time.Now()
		_, err := client.Greet(ctx, &pb.GreetRequest{Name: "x"}, opts...)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			r.failed = append(r.failed, failure{begun, err})
			return
		}
		r.answered = append(r.answered, time.Now())
	}
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				r.made++
				wg.Go(one)
			}
		}
	})
	ended := sync.OnceFunc(func() {
		close(end)
		wg.Wait()
	})
	w.t.Cleanup(ended) // when the test fails before
	return func() record {
		ended()
		return r
	}
}

// Calls that go on over the relay move to a direct connection, and so does a stream: no call fails, no message is lost,
// and none waits.
func TestWAN_MovesUnderLoad(t *testing.T) {
	t.Parallel()
	inWAN(t, func(t *testing.T, w *wan) {
		a, b := w.node(w.Router(hosttest.PortRestricted), "a"), w.node(w.Router(hosttest.PortRestricted), "b")
		w.Partition(nodesOf(a), nodesOf(b))
		w.mustGreet(a, b)
		stop, quiet := w.steadyCalls(a, b), w.steadyTalk(a, b)
		time.Sleep(5 * time.Second)
		w.Heal()
		t.Logf("direct after %v", w.directWithin(2*time.Minute, a, b))
		t.Logf("the relayed connection ended after %v more", w.aloneWithin(drained, a, b))
		time.Sleep(5 * time.Second)
		r, s := stop(), quiet()
		for _, f := range r.failed {
			t.Errorf("a call failed: %v", f.err)
		}
		if gap := r.longestGap(); gap > 500*time.Millisecond {
			t.Errorf("no answer for %v", gap)
		}
		if s.err != nil || s.gap > 500*time.Millisecond {
			t.Errorf("no message for %v, error %v", s.gap, s.err)
		}
		t.Logf("%d calls, longest gap %v; %d messages, longest gap %v", r.made, r.longestGap(), s.back, s.gap)
	})
}

// Calls that go on directly move back over the relay when the direct way is cut, which nobody is told, and so does a
// stream, without the loss of a message.
func TestWAN_BackOverTheRelay(t *testing.T) {
	t.Parallel()
	inWAN(t, func(t *testing.T, w *wan) {
		a, b := w.node(w.Router(hosttest.PortRestricted), "a"), w.node(w.Router(hosttest.PortRestricted), "b")
		w.mustGreet(a, b)
		w.directWithin(3*time.Second, a, b)
		w.aloneWithin(drained, a, b)
		stop, still, quiet := w.steadyCalls(a, b), w.steadyCalls(a, b, p2p.Repeatable()), w.steadyTalk(a, b)
		time.Sleep(5 * time.Second)
		w.Partition(nodesOf(a), nodesOf(b))
		cut := time.Now()
		time.Sleep(15 * time.Second)
		if p := peerOf(a, b.ID()); p.Path != "relay" {
			t.Errorf("path %q", p.Path)
		}
		r, again, s := stop(), still(), quiet()
		for _, f := range again.failed {
			t.Errorf("a call that may be repeated failed: %v", f.err)
		}
		if gap := r.longestGap(); gap > recovery {
			t.Errorf("no answer for %v", gap)
		}
		if s.err != nil || s.gap > recovery {
			t.Errorf("no message for %v, error %v", s.gap, s.err)
		}
		var last time.Duration // of the calls that had gone out on the way that was cut
		for _, f := range r.failed {
			last = max(last, f.begun.Sub(cut))
			if c := status.Code(f.err); c != codes.Unavailable {
				t.Errorf("a call failed: %v", f.err)
			}
		}
		if last > recovery {
			t.Errorf("a call failed that was made %v after the cut", last)
		}
		t.Logf("%d calls, %d failed, the last made %v after the cut, longest gap %v; %d messages, longest gap %v",
			r.made, len(r.failed), last, r.longestGap(), s.back, s.gap)
		w.Heal()
		t.Logf("direct again after %v", w.directWithin(2*time.Minute, a, b))
	})
}
