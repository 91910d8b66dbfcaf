package grpcstream

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// callAll calls x.A n times, one after the other, and counts who answers.
func callAll(t *testing.T, cc grpc.ClientConnInterface, n int) map[peer.ID]int {
	t.Helper()
	count := map[peer.ID]int{}
	for range n {
		id, err := askWho(t.Context(), cc, "x.A")
		if err != nil {
			t.Fatal(err)
		}
		count[id]++
	}
	return count
}

// warm has calls come until all instances are connected.
func warm(t *testing.T, cc grpc.ClientConnInterface) {
	t.Helper()
	for range 12 {
		callAll(t, cc, 1)
		synctest.Wait()
	}
}

func TestChannel_NotServingGetsNoCall(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b, c := o.host(), o.host(), o.host()
		ch := o.channel(a, ChannelConfig{})
		sb := o.serve(b, "x.A")
		o.serve(c, "x.A")
		o.connect(a, b)
		o.connect(a, c)
		warm(t, ch)
		if n := callAll(t, ch, 20); n[b.ID()] != 10 {
			t.Fatalf("the calls went to %v", n)
		}
		sb.SetServing("x.A", false)
		time.Sleep(time.Second)
		if n := callAll(t, ch, 100); n[b.ID()] != 0 {
			t.Errorf("%d of 100 calls went to an instance that is not serving", n[b.ID()])
		}
		for _, i := range ch.Instances("x.A") {
			if want := map[peer.ID]Health{b.ID(): HealthNotServing, c.ID(): HealthServing}[i.Peer]; i.Health != want || !i.Connected {
				t.Errorf("%s is said to be %q, want %q", i.Peer, i.Health, want)
			}
		}
		sb.SetServing("x.A", true)
		time.Sleep(time.Second)
		if n := callAll(t, ch, 20); n[b.ID()] != 10 {
			t.Errorf("after it was serving again the calls went to %v", n)
		}
	})
}

func TestChannel_NobodyServing(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		s := o.serve(b, "x.A")
		s.SetServing("x.A", false)
		ch := o.channel(a, ChannelConfig{})
		o.connect(a, b)
		start := time.Now()
		_, err := askWho(t.Context(), ch, "x.A")
		wantReason(t, err, ReasonNotServing)
		if d := time.Since(start); d != defaultDiscoveryTimeout {
			t.Errorf("held for %v", d)
		}
		time.AfterFunc(time.Second, func() { s.SetServing("x.A", true) })
		start = time.Now()
		if _, err := askWho(t.Context(), ch, "x.A"); err != nil || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// mute is a health service that does not speak of services.
type mute struct {
	healthpb.UnimplementedHealthServer
}

func TestChannel_NoHealthServiceIsServing(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		s := NewServer(ServerConfig{Logger: muted()})
		healthpb.RegisterHealthServer(s, mute{})
		s.RegisterService(whoDesc("x.A"), &who{id: b.ID()})
		if err := s.Start(b); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Shutdown(t.Context()) }()
		ch := o.channel(a, ChannelConfig{})
		o.connect(a, b)
		start := time.Now()
		callAll(t, ch, 10)
		if d := time.Since(start); d > 100*time.Millisecond {
			t.Errorf("held for %v", d)
		}
	})
}

// A watch of a service's health is no call: it does not make a peer look like one in use.
func TestServer_AHealthWatchIsNoUse(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		s := o.serve(b, "x.A")
		ch := o.channel(a, ChannelConfig{})
		o.connect(a, b)
		callAll(t, ch, 1)
		time.Sleep(callPause + time.Second)
		if i := ch.Instances("x.A"); i[0].Health != HealthServing {
			t.Fatalf("%+v", i)
		}
		if s.InUse(a.ID()) {
			t.Error("the caller is in use although no call runs")
		}
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_ = ch.Invoke(ctx, "/x.A/Hang", nothing(), nothing())
		}()
		synctest.Wait()
		if !s.InUse(a.ID()) {
			t.Error("the caller is not in use although a call runs")
		}
		time.Sleep(2 * time.Second)
	})
}

func TestChannel_Tags(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a := o.host()
		ch := o.channel(a, ChannelConfig{})
		at := map[string]corehost.Host{}
		for _, tag := range []string{"color=blue", "color=green"} {
			h := o.host()
			at[tag] = h
			s := NewServer(ServerConfig{Logger: muted(), Tags: []string{tag, "zone=1"}})
			s.RegisterService(whoDesc("x.A"), &who{id: h.ID()})
			if err := s.Start(h); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Shutdown(t.Context()) }()
			o.connect(a, h)
		}
		for tag, h := range at {
			cc := ch.Select(Selector{Tags: []string{tag, "zone=1"}})
			if n := callAll(t, cc, 1000); n[h.ID()] != 1000 {
				t.Errorf("%s: the calls went to %v", tag, n)
			}
		}
		_, err := askWho(t.Context(), ch.Select(Selector{Tags: []string{"color=red"}}), "x.A")
		wantReason(t, err, ReasonNoInstance)
		_, err = askWho(t.Context(), ch.Select(Selector{Tags: []string{"red"}}), "x.A")
		wantReason(t, err, ReasonBadTarget)
	})
}

func TestServer_BadTags(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		many := make([]string, maxTags+1)
		for i := range many {
			many[i] = "k=v"
		}
		for _, tags := range [][]string{{"x"}, {"=x"}, {"x="}, {"a=b=c"}, {"a=ü"}, many} {
			if err := NewServer(ServerConfig{Logger: muted(), Tags: tags}).Start(o.host()); err == nil {
				t.Errorf("a server with the tags %q was started", tags)
			}
		}
	})
}

// A load calls x.A all the time, and counts the calls that failed.
type load struct {
	wg     sync.WaitGroup
	cancel context.CancelFunc
	mu     sync.Mutex
	n      map[peer.ID]int
	errs   []error
}

func startLoad(ctx context.Context, cc grpc.ClientConnInterface, callers int, opts ...grpc.CallOption) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel, n: map[peer.ID]int{}}
	for range callers {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				id, err := askWho(ctx, cc, "x.A", opts...)
				l.mu.Lock()
				if err == nil {
					l.n[id]++
				} else if ctx.Err() == nil {
					l.errs = append(l.errs, err)
				}
				l.mu.Unlock()
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	return l
}

// stop ends the calls and returns how many each instance answered, and the errors.
func (l *load) stop() (map[peer.ID]int, []error) {
	l.cancel()
	l.wg.Wait()
	return l.n, l.errs
}

// busily takes 10 ms for each call.
func busily(ctx context.Context) error {
	select {
	case <-time.After(10 * time.Millisecond):
	case <-ctx.Done():
	}
	return ctx.Err()
}

// An instance that leaves gracefully costs no call, and one that comes gets its share.
func TestChannel_NoCallFailsWhenAnInstanceLeavesAndOneComes(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a := o.host()
		ch := o.channel(a, ChannelConfig{})
		var hosts []corehost.Host
		var servers []*Server
		join := func() {
			h := o.host()
			hosts = append(hosts, h)
			servers = append(servers, o.serveAs(h, &who{id: h.ID(), fail: busily}, "x.A"))
			o.connect(a, h)
		}
		for range 3 {
			join()
		}
		l := startLoad(t.Context(), ch, 10)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := servers[0].Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := o.net.DisconnectPeers(a.ID(), hosts[0].ID()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		join()
		time.Sleep(2 * time.Second)
		n, errs := l.stop()
		if len(errs) > 0 {
			t.Fatalf("%d calls failed: %v", len(errs), errs[0])
		}
		for i, h := range hosts {
			if n[h.ID()] < 100 {
				t.Errorf("instance %d got %d calls", i, n[h.ID()])
			}
		}
	})
}

// An instance that dies costs the calls that are in flight on it, and none of the repeatable ones.
func TestChannel_ADeathCostsTheCallsInFlight(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a := o.host()
		ch := o.channel(a, ChannelConfig{})
		var victim corehost.Host
		for range 3 {
			victim = o.host()
			o.serveAs(victim, &who{id: victim.ID(), fail: busily}, "x.A")
			o.connect(a, victim)
		}
		warm(t, ch)
		once, often := startLoad(t.Context(), ch, 10), startLoad(t.Context(), ch, 10, Repeatable())
		time.Sleep(time.Second)
		if err := o.net.UnlinkPeers(a.ID(), victim.ID()); err != nil {
			t.Fatal(err)
		}
		inFlight := 0
		for _, i := range ch.Instances("x.A") {
			if i.Peer == victim.ID() {
				inFlight = i.InFlight
			}
		}
		if err := o.net.DisconnectPeers(a.ID(), victim.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if _, errs := often.stop(); len(errs) > 0 {
			t.Errorf("%d repeatable calls failed: %v", len(errs), errs[0])
		}
		_, errs := once.stop()
		if len(errs) > inFlight {
			t.Errorf("%d calls failed, %d were in flight: %v", len(errs), inFlight, errs[0])
		}
		for _, err := range errs {
			if status.Code(err) != codes.Unavailable {
				t.Errorf("a call that was in flight: %v", err)
			}
		}
	})
}

// The node's own instance is one of them, called in memory.
func TestChannel_OwnInstanceCounts(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		s := o.serve(a, "x.A")
		o.serve(b, "x.A")
		ch := o.channel(a, ChannelConfig{Self: s})
		o.connect(a, b)
		warm(t, ch)
		if n := callAll(t, ch, 100); n[a.ID()] != 50 || n[b.ID()] != 50 {
			t.Errorf("the calls went to %v", n)
		}
		for _, i := range ch.Instances("x.A") {
			if own := i.Peer == a.ID(); i.Self != own || own != (i.Path == PathMemory) || i.Health != HealthServing {
				t.Errorf("%+v", i)
			}
		}
		if n := callAll(t, ch.Select(Selector{Nearest: true}), 10); n[a.ID()] != 10 {
			t.Errorf("the nearest: %v", n)
		}
	})
}
