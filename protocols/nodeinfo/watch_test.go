package nodeinfo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lynn9388/p2p/internal/virtual"
)

// ids are the texts of n peer IDs, sorted.
func ids(n int) (out []string) {
	for i := range n {
		// The identity multihash of two bytes: a short ID that decodes.
		out = append(out, peer.ID([]byte{0, 2, byte(i >> 8), byte(i)}).String())
	}
	slices.Sort(out)
	return out
}

func who(id string, services ...string) *Neighbor {
	return &Neighbor{Id: id, Name: "n", Services: services}
}

// watching starts a watch of n's neighbors; next returns its next change, and nil when it has ended.
func watching(t *testing.T, ctx context.Context, n Node) (next func() *WatchResponse, ended func() error, stop func()) { //nolint:revive // the test's helper comes first
	t.Helper()
	cc, stopServer := dial(t, func(s *grpc.Server) { Register(s, n) })
	changes := make(chan *WatchResponse)
	end := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(changes)
		for c, err := range Watch(ctx, cc) {
			if err != nil {
				end <- err
				return
			}
			select {
			case changes <- c:
			case <-ctx.Done():
			}
		}
	}()
	return func() *WatchResponse { return <-changes }, func() error { return <-end }, func() {
		cancel()
		stopServer()
	}
}

func same(t *testing.T, want, got *WatchResponse) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestWatch_ThePresentStateAndThenWhatChanges(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		id := ids(3)
		w := newWorld(who(id[1], "b.B", "a.A"), who(id[0]))
		next, _, stop := watching(t, t.Context(), node{world: w})
		defer stop()
		same(t, &WatchResponse{Neighbors: []*Neighbor{who(id[0]), who(id[1], "a.A", "b.B")}}, next())
		w.become(who(id[0]), who(id[1], "b.B"), who(id[2]))
		same(t, &WatchResponse{Neighbors: []*Neighbor{who(id[1], "b.B"), who(id[2])}}, next())
		w.become(who(id[1], "b.B"), who(id[2]))
		same(t, &WatchResponse{Gone: []string{id[0]}}, next())
		// What did not change is not told.
		w.become(who(id[2]), who(id[1], "b.B"))
		time.Sleep(time.Second)
		w.become(who(id[1], "b.B"))
		same(t, &WatchResponse{Gone: []string{id[2]}}, next())
	})
}

func TestWatch_NobodyIsToldToo(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		next, _, stop := watching(t, t.Context(), node{world: newWorld()})
		defer stop()
		same(t, &WatchResponse{}, next())
	})
}

// gate is the server's end of a watch whose caller reads when it likes.
type gate struct {
	grpc.ServerStream
	ctx  context.Context //nolint:containedctx // a ServerStream carries its context
	sent chan *WatchResponse
}

func (g gate) Context() context.Context { return g.ctx }

func (g gate) Send(c *WatchResponse) error {
	select {
	case g.sent <- c:
		return nil
	case <-g.ctx.Done():
		return g.ctx.Err()
	}
}

// A caller that does not read makes nothing pile up: all it missed comes as one.
func TestWatch_ASlowCallerGetsChangesAsOne(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		id := ids(500)
		w := newWorld()
		ctx, cancel := context.WithCancel(t.Context())
		g := gate{ctx: ctx, sent: make(chan *WatchResponse)}
		done := make(chan error, 1)
		go func() { done <- newServer(node{world: w}).Watch(nil, g) }()
		same(t, &WatchResponse{}, <-g.sent)
		w.become(who(id[0]))
		time.Sleep(time.Second) // it is being sent
		var want []*Neighbor
		for i, p := range id {
			w.become(who(p, fmt.Sprintf("s.S%d", i)))
			time.Sleep(watchPause / 3)
		}
		want = append(want, who(id[499], "s.S499"))
		same(t, &WatchResponse{Neighbors: []*Neighbor{who(id[0])}}, <-g.sent)
		same(t, &WatchResponse{Neighbors: want, Gone: id[:1]}, <-g.sent)
		synctest.Wait()
		select {
		case c := <-g.sent:
			t.Errorf("one more change: %v", c)
		default:
		}
		cancel()
		if err := <-done; status.Code(err) != codes.Canceled {
			t.Errorf("it ended with %v, want Canceled", err)
		}
	})
}

// However fast things change, a watch sends ten times a second at most.
func TestWatch_ABurstIsOneChange(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		id := ids(2)
		w := newWorld()
		next, _, stop := watching(t, t.Context(), node{world: w})
		defer stop()
		start := time.Now()
		next()
		const n = 50
		for i := range n {
			w.become(who(id[i%2], fmt.Sprint("s.S", i)))
			next()
		}
		if took := time.Since(start); took < n*watchPause {
			t.Errorf("%d changes within %v", n, took)
		}
	})
}

func TestWatch_EndsWhenTheNodeCloses(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		w := newWorld()
		next, ended, stop := watching(t, t.Context(), node{world: w})
		defer stop()
		next()
		close(w.changed)
		if err := ended(); status.Code(err) != codes.Unavailable {
			t.Errorf("it ended with %v, want Unavailable", err)
		}
	})
}

func TestWatch_ACallerHasAFew(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		cc, stop := dial(t, func(s *grpc.Server) { Register(s, node{world: newWorld()}) })
		defer stop()
		open := func(ctx context.Context) error {
			s, err := NewNodeInfoServiceClient(cc).Watch(ctx, &WatchRequest{})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		}
		ctx, cancel := context.WithCancel(t.Context())
		for range maxWatches {
			if err := open(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if err := open(ctx); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one more: %v, want ResourceExhausted", err)
		}
		cancel()
		synctest.Wait()
		if err := open(t.Context()); err != nil {
			t.Errorf("after the others: %v", err)
		}
	})
}

func TestWatches_AreBoundedInAll(t *testing.T) {
	w := &newServer(nil).watches
	for range 2 {
		for i := range maxAllWatches {
			if !w.Take(peer.ID(fmt.Sprint(i))) {
				t.Fatalf("number %d is refused", i)
			}
		}
		if w.Take("one more") {
			t.Error("one more is let in")
		}
		for i := range maxAllWatches {
			w.Give(peer.ID(fmt.Sprint(i)))
		}
	}
}

func TestWatch_IsLimited(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		var all []*Neighbor
		for _, id := range ids(MaxNeighbors + 10) {
			n := &Neighbor{Id: id, Name: strings.Repeat("n", 2*MaxText), Services: []string{"bad/one", "", "twice", "twice"}}
			for i := range 2 * MaxNeighborServices {
				n.Services = append(n.Services, fmt.Sprintf("%s%03d", strings.Repeat("s", 190), i))
			}
			all = append(all, n)
		}
		next, _, stop := watching(t, t.Context(), node{world: newWorld(all...)})
		defer stop()
		got := next().GetNeighbors()
		if len(got) != MaxNeighbors || len(got[0].GetServices()) != MaxNeighborServices || len(got[0].GetName()) != MaxText {
			t.Errorf("%d neighbors, the first with %d services", len(got), len(got[0].GetServices()))
		}
	})
}

func TestWatch_RefusesWhatBreaksTheProtocol(t *testing.T) {
	id := ids(MaxNeighbors + 1)
	var many []*Neighbor
	var services []string
	for i, p := range id {
		many = append(many, who(p))
		services = append(services, fmt.Sprintf("s%04d", i))
	}
	for name, c := range map[string]*WatchResponse{
		"too many":            {Neighbors: many},
		"too many gone":       {Gone: id},
		"no ID":               {Neighbors: []*Neighbor{{}}},
		"a malformed ID":      {Gone: []string{"\x1b[2J"}},
		"out of order":        {Neighbors: []*Neighbor{who(id[1]), who(id[0])}},
		"gone twice":          {Gone: []string{id[0], id[0]}},
		"too many services":   {Neighbors: []*Neighbor{who(id[0], services...)}},
		"a malformed service": {Neighbors: []*Neighbor{who(id[0], "a\u202eb")}},
		"a service twice":     {Neighbors: []*Neighbor{who(id[0], "a", "a")}},
	} {
		t.Run(name, func(t *testing.T) {
			var last error
			for got, err := range Watch(t.Context(), lying(t, liar{changes: []*WatchResponse{{}, c, {}}})) {
				if last != nil || err != nil && got != nil {
					t.Fatalf("%v, %v after %v", got, err, last)
				}
				last = err
			}
			if !errors.Is(last, ErrAnswer) {
				t.Fatalf("it ended with %v, want ErrAnswer", last)
			}
			if strings.ContainsFunc(last.Error(), func(r rune) bool { return (r < ' ' || r > '~') && r != '\n' }) {
				t.Errorf("error %q is not fit for a terminal", last)
			}
		})
	}
}

func TestWatch_AServerThatEndsIt(t *testing.T) {
	n := 0
	for _, err := range Watch(t.Context(), lying(t, liar{changes: []*WatchResponse{{}, {}}})) {
		if err != nil {
			t.Error(err)
		}
		n++
	}
	if n != 2 {
		t.Errorf("%d changes, want 2", n)
	}
}

func TestWatch_LeavingTheLoopEndsTheCall(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		cc, stop := dial(t, func(s *grpc.Server) { Register(s, node{world: newWorld()}) })
		defer stop()
		for range 3 * maxWatches {
			for _, err := range Watch(t.Context(), cc) {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			synctest.Wait()
		}
	})
}

func FuzzWatch(f *testing.F) {
	id := ids(2)
	for _, res := range []*WatchResponse{
		{},
		{Neighbors: []*Neighbor{who(id[0], "a.A", "b.B"), who(id[1])}},
		{Gone: id},
		{Neighbors: []*Neighbor{{Id: "x"}}, Gone: []string{""}},
	} {
		data, err := proto.Marshal(res)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var res WatchResponse
		if proto.Unmarshal(data, &res) != nil {
			return
		}
		if err := checkChange(&res); err != nil {
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return (r < ' ' || r > '~') && r != '\n' }) {
				t.Errorf("error %q is not fit for a terminal", err)
			}
			return
		}
		for _, n := range res.GetNeighbors() {
			if _, err := peer.Decode(n.GetId()); err != nil || len(n.GetName()) > MaxText {
				t.Errorf("%v, %v", n, err)
			}
		}
	})
}
