package grpcstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A registry is somebody who knows who offers what.
type registry struct {
	mu      sync.Mutex
	offer   []corehost.Host
	takes   time.Duration // for each answer
	fails   error         // comes at the end
	asked   atomic.Int32
	running atomic.Int32
	most    atomic.Int32 // searches at once
}

func (r *registry) add(hs ...corehost.Host) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.offer = append(r.offer, hs...)
}

func (r *registry) find(ctx context.Context, _ string) iter.Seq2[peer.AddrInfo, error] {
	return func(yield func(peer.AddrInfo, error) bool) {
		r.asked.Add(1)
		r.most.Store(max(r.most.Load(), r.running.Add(1)))
		defer r.running.Add(-1)
		r.mu.Lock()
		offer := r.offer
		r.mu.Unlock()
		for _, h := range offer {
			select {
			case <-time.After(r.takes):
			case <-ctx.Done():
				return
			}
			if !yield(peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}, nil) {
				return
			}
		}
		if r.fails != nil {
			yield(peer.AddrInfo{}, r.fails)
		}
	}
}

func TestFind_ACallToAServiceThatNobodyConnectedOffers(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b, liar := o.host(), o.host(), o.host()
		o.serve(b, "x.A")
		o.serve(liar, "x.B")
		r := &registry{takes: 50 * time.Millisecond}
		r.add(liar, b)
		ch := o.channel(a, ChannelConfig{Find: r.find})
		var wg sync.WaitGroup
		start := time.Now()
		for range 50 {
			wg.Go(func() {
				if id, err := askWho(t.Context(), ch, "x.A"); err != nil || id != b.ID() {
					t.Errorf("%s, %v", id, err)
				}
			})
		}
		wg.Wait()
		if d := time.Since(start); d > 500*time.Millisecond {
			t.Errorf("found after %v", d)
		}
		time.Sleep(time.Minute)
		if n := r.asked.Load(); n != 1 {
			t.Errorf("it was looked for %d times for 50 calls at once", n)
		}
		if got := ch.Instances("x.A"); len(got) != 1 || got[0].Peer != b.ID() {
			t.Errorf("who does not offer it is taken for an instance: %v", got)
		}
	})
}

// While calls wait the search is repeated, and not any longer.
func TestFind_RepeatedWhileCallsWait(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		o.serve(b, "x.A")
		r := &registry{}
		ch := o.channel(a, ChannelConfig{Find: r.find})
		_, err := askWho(t.Context(), ch, "x.A")
		wantReason(t, err, ReasonNoInstance)
		n := r.asked.Load()
		if n < 2 || n > 5 {
			t.Errorf("%d searches in 5 s", n)
		}
		time.Sleep(time.Hour)
		if m := r.asked.Load(); m > n+1 {
			t.Errorf("%d searches while no call waited", m-n)
		}
		// A call that waits without end has it looked for without end.
		time.AfterFunc(time.Minute, func() { r.add(b) })
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		start := time.Now()
		if _, err := askWho(ctx, ch, "x.A", grpc.WaitForReady(true)); err != nil || time.Since(start) > time.Minute+2*findPauseMax {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if r.most.Load() != 1 {
			t.Errorf("%d searches at once", r.most.Load())
		}
	})
}

func TestSearch(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a := o.host()
		r := &registry{takes: time.Second, fails: errors.New("no more")}
		var all []corehost.Host
		for range 3 {
			h := o.host()
			o.serve(h, "x.A")
			all = append(all, h)
		}
		o.connect(a, all[0])
		gone := o.stranger()
		r.add(all[0], gone, all[1], a, all[2])
		ch := o.channel(a, ChannelConfig{Find: r.find})
		synctest.Wait()
		start := time.Now()
		var got []peer.ID
		var at []time.Duration
		var last error
		for i, err := range ch.Search(t.Context(), Selector{Service: "x.A"}) {
			if last = err; err == nil {
				got = append(got, i.Peer)
				at = append(at, time.Since(start).Round(time.Second))
			}
		}
		if fmt.Sprint(got) != fmt.Sprint([]peer.ID{all[0].ID(), all[1].ID(), all[2].ID()}) {
			t.Errorf("found %v", got)
		}
		if fmt.Sprint(at) != "[0s 3s 5s]" {
			t.Errorf("they came after %v", at)
		}
		if last == nil || last.Error() != "no more" {
			t.Errorf("the search's error: %v", last)
		}
		// What is known is there at once, also when nobody waits.
		over, cancel := context.WithCancel(t.Context())
		cancel()
		n := 0
		for _, err := range ch.Search(over, Selector{Service: "x.A"}) {
			if n++; err != nil {
				t.Error(err)
			}
		}
		if n != 3 {
			t.Errorf("%d instances are known", n)
		}
		for _, err := range ch.Search(t.Context(), Selector{Service: "a b"}) {
			wantReason(t, err, ReasonBadTarget)
		}
	})
}

// While nobody is known a search waits for the first as a call does, with nobody to ask, too.
func TestSearch_WaitsForTheFirst(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		o.serve(b, "x.A")
		ch := o.channel(a, ChannelConfig{})
		time.AfterFunc(2*time.Second, func() { _, _ = o.net.ConnectPeers(a.ID(), b.ID()) })
		for name, want := range map[string]int{"x.A": 1, "x.B": 0} {
			n := 0
			start := time.Now()
			for _, err := range ch.Search(t.Context(), Selector{Service: name}) {
				if n++; err != nil {
					t.Error(err)
				}
			}
			if d := time.Since(start); n != want || want == 0 && d != defaultDiscoveryTimeout || d > defaultDiscoveryTimeout {
				t.Errorf("%s: %d found after %v", name, n, d)
			}
		}
	})
}

func TestEach(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a := o.host()
		ch := o.channel(a, ChannelConfig{})
		slow := map[peer.ID]bool{}
		for i := range 50 {
			h := o.host()
			hangs := i%10 == 0
			slow[h.ID()] = hangs
			o.serveAs(h, &who{id: h.ID(), fail: func(ctx context.Context) error {
				if hangs {
					<-ctx.Done()
				}
				return ctx.Err()
			}}, "x.A")
			o.connect(a, h)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		seen := map[peer.ID]bool{}
		good, early := 0, 0
		for i, err := range ch.Each(ctx, Selector{Service: "x.A"}, func(ctx context.Context, cc grpc.ClientConnInterface) error {
			_, err := askWho(ctx, cc, "x.A")
			return err
		}) {
			if seen[i.Peer] {
				t.Errorf("%s came twice", i.Peer)
			}
			seen[i.Peer] = true
			switch {
			case err == nil:
				good++
				if time.Since(start) < time.Second {
					early++
				}
			case !slow[i.Peer]:
				t.Errorf("%s: %v", i.Peer, err)
			case !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.DeadlineExceeded:
				t.Errorf("one that hangs: %v", err)
			}
		}
		if d := time.Since(start); d > 2200*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		if good != 45 || early != 45 || len(seen) != 50 {
			t.Errorf("%d answers, %d of them as they came, of %d instances", good, early, len(seen))
		}
	})
}

func TestEach_NobodyAndNotServing(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		s := o.serve(b, "x.A")
		ch := o.channel(a, ChannelConfig{})
		ask := func(ctx context.Context, cc grpc.ClientConnInterface) error {
			_, err := askWho(ctx, cc, "x.A")
			return err
		}
		n := 0
		for i, err := range ch.Each(t.Context(), Selector{Service: "x.A"}, ask) {
			if n++; i.Peer != "" {
				t.Error(i)
			}
			wantReason(t, err, ReasonNoInstance)
		}
		canceled, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		for _, err := range ch.Each(canceled, Selector{Service: "x.A"}, ask) {
			if status.Code(err) != codes.Canceled {
				t.Errorf("the caller gave up: %v", err)
			}
		}
		o.connect(a, b)
		callAll(t, ch, 1)
		s.SetServing("x.A", false)
		synctest.Wait()
		for i, err := range ch.Each(t.Context(), Selector{Service: "x.A"}, ask) {
			if n++; i.Peer != b.ID() {
				t.Error(i)
			}
			wantReason(t, err, ReasonNotServing)
		}
		if n != 2 {
			t.Errorf("%d results", n)
		}
		for _, err := range ch.Each(t.Context(), Selector{}, ask) {
			wantReason(t, err, ReasonBadTarget)
		}
	})
}

// A loop that is left ends the calls that are under way, before the next statement.
func TestEach_LoopLeft(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a := o.host()
		ch := o.channel(a, ChannelConfig{})
		for range 5 {
			h := o.host()
			o.serve(h, "x.A")
			o.connect(a, h)
		}
		var under, first atomic.Int32
		for _, err := range ch.Each(t.Context(), Selector{Service: "x.A"}, func(ctx context.Context, _ grpc.ClientConnInterface) error {
			under.Add(1)
			defer under.Add(-1)
			if first.Add(1) == 1 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}) {
			if err != nil {
				t.Error(err)
			}
			break
		}
		if n := under.Load(); n != 0 {
			t.Errorf("%d calls are under way after the loop", n)
		}
	})
}
