package grpcstream

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lynn9388/p2p/internal/virtual"
)

// A fickleHealth says one thing and then the other, as fast as it is read, until it has said all; then it is serving.
type fickleHealth struct {
	healthpb.HealthClient
	words   int
	watches atomic.Int64
}

func (f *fickleHealth) Watch(ctx context.Context, _ *healthpb.HealthCheckRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[healthpb.HealthCheckResponse], error) {
	f.watches.Add(1)
	return &fickleWatch{health: f, ctx: ctx}, nil
}

type fickleWatch struct {
	grpc.ClientStream
	health *fickleHealth
	ctx    context.Context //nolint:containedctx // of the stream, as in gRPC
	calm   bool
}

func (s *fickleWatch) Recv() (*healthpb.HealthCheckResponse, error) {
	if s.calm {
		<-s.ctx.Done()
		return nil, s.ctx.Err()
	}
	s.health.words--
	s.calm = s.health.words < 0
	if s.calm || s.health.words%2 == 0 {
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}, nil
}

// One instance cannot have the choice among all made ready as often as it likes. It gets no call until it has calmed down.
func TestWatcher_AnInstanceThatChangesItsHealthAllTheTime(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h, w := newFakeHub()
		defer h.close()
		offering(h, "a", "b")
		connectAll(t, h, w, selector{})
		fickle := &fickleHealth{words: maxWords + 120}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		wakes := w.wakes.Load()
		go func() {
			defer close(done)
			(&watcher{probe: probeOf(w, "a"), hub: h}).run(ctx, fickle)
		}()
		time.Sleep(30*time.Second + watchPause/2)
		if n := w.wakes.Load() - wakes; n > maxWords+2*31 {
			t.Errorf("its service was made ready %d times in 30 s", n)
		}
		if n := fickle.watches.Load(); n < 10 || n > 31 {
			t.Errorf("it was asked %d times in 30 s", n)
		}
		wantSpread(t, spread(t, h, selector{}, 10), map[peer.ID]int{"b": 10})
		time.Sleep(2 * time.Minute)
		wantSpread(t, spread(t, h, selector{}, 10), map[peer.ID]int{"a": 5, "b": 5})
		cancel()
		<-done
	})
}
