package broadcast

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/internal/virtual"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type text = *wrapperspb.StringValue

// world is a number of nodes with a bus each, on a network in memory, until the test ends.
type world struct {
	t     *testing.T
	net   mocknet.Mocknet
	hosts []corehost.Host
	buses []*Bus
	over  sync.Once
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newWorld(t *testing.T, count int, change func(i int, c *Config)) *world {
	t.Helper()
	w := &world{t: t, net: mocknet.New()}
	t.Cleanup(w.close) // also of a test that gave up: a bubble panics about what is left in it, which hides why
	for i := range count {
		h, err := w.net.GenPeer()
		if err != nil {
			t.Fatal(err)
		}
		w.hosts = append(w.hosts, h)
		cfg := Config{Host: func() (corehost.Host, error) { return h, nil }, Network: "test", Logger: quiet()}
		if change != nil {
			change(i, &cfg)
		}
		w.buses = append(w.buses, New(cfg))
	}
	if err := w.net.LinkAll(); err != nil {
		t.Fatal(err)
	}
	return w
}

// close ends everything.
func (w *world) close() {
	w.t.Helper()
	w.over.Do(func() {
		for _, b := range w.buses {
			if err := b.Close(); err != nil {
				w.t.Errorf("close a bus: %v", err)
			}
		}
		if err := w.net.Close(); err != nil {
			w.t.Errorf("close the network: %v", err)
		}
	})
}

func (w *world) connect(a, b int) {
	w.t.Helper()
	if _, err := w.net.ConnectPeers(w.hosts[a].ID(), w.hosts[b].ID()); err != nil {
		w.t.Fatal(err)
	}
}

// ring connects each node with its successors at the given distances, so that all have the same degree.
func (w *world) ring(distances ...int) {
	w.t.Helper()
	for i := range w.hosts {
		for _, d := range distances {
			w.connect(i, (i+d)%len(w.hosts))
		}
	}
}

// random connects each node with some others, as a keeper of neighbors would.
func (w *world) random(seed uint64, each int) {
	w.t.Helper()
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // replayable
	for i := range w.hosts {
		for _, j := range r.Perm(len(w.hosts))[:each] {
			if i != j {
				w.connect(i, j)
			}
		}
	}
}

// inTime runs f in virtual time, which begins now.
func inTime(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	now := time.Now().Round(0)
	virtual.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(now))
		f(t)
		synctest.Wait()
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func join[T proto.Message](t *testing.T, b *Bus, name string) *Topic[T] {
	t.Helper()
	topic, err := Join[T](b, name)
	must(t, err)
	return topic
}

func subscribe[T proto.Message](t *testing.T, topic *Topic[T], buffer int) *Subscription[T] {
	t.Helper()
	s, err := topic.Subscribe(buffer)
	must(t, err)
	return s
}

// next is the next message within a while.
func next[T proto.Message](t *testing.T, s *Subscription[T]) Message[T] {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for m := range s.Messages(ctx) {
		return m
	}
	t.Fatal("no message")
	return Message[T]{}
}

// heardBy collects the texts that are there.
func heardBy(s *Subscription[text]) []string {
	var out []string
	for {
		select {
		case m, ok := <-s.C():
			if !ok {
				return out
			}
			out = append(out, m.Body.GetValue())
		default:
			return out
		}
	}
}

func say(s string) text { return wrapperspb.String(s) }
