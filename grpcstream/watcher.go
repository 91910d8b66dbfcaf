package grpcstream

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const (
	watchPause    = time.Second      // before a health watch that ended is begun anew; doubled each time
	watchPauseMax = 30 * time.Second // and at most

	// An instance may say this often at once how it is, and then once in each pause: each time the choice among all
	// instances of its service is made ready anew.
	maxWords = 16
)

// errFickle ends the watch of an instance that says too often how it is.
var errFickle = errors.New("grpcstream: the instance changes its health all the time")

// A watcher asks one instance for its health, over its SubConn. It is its own balancer.ProducerBuilder, of one
// producer only.
type watcher struct {
	probe   *probe
	hub     *hub
	ended   func()
	release func()
	built   chan struct{} // closed when release is set
}

// run watches until ctx ends, or the peer says that it does not speak of health.
func (w *watcher) run(ctx context.Context, client healthpb.HealthClient) {
	known, words := false, rate.NewLimiter(rate.Every(watchPause), maxWords)
	for pause := watchPause; ; pause = min(2*pause, watchPauseMax) {
		said, err := w.watch(ctx, client, words)
		known = known || said
		if ctx.Err() != nil {
			return
		}
		if said {
			pause = watchPause
		}
		switch status.Code(err) {
		case codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated:
			w.hub.told(w.probe, unsaid, 0)
			return
		default:
			if !known {
				w.hub.told(w.probe, unsaid, 0)
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// watch passes on what one watch says, until it ends. An instance with too many words gets no call until it is asked
// again.
func (w *watcher) watch(ctx context.Context, client healthpb.HealthClient, words *rate.Limiter) (said bool, err error) {
	begun := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{Service: w.probe.service}, grpc.WaitForReady(false))
	if err != nil {
		return false, err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return said, err
		}
		took := time.Duration(0)
		if !said {
			took = time.Since(begun)
		}
		said = true
		if !words.Allow() {
			w.hub.told(w.probe, notServing, took)
			return true, errFickle
		}
		w.hub.told(w.probe, fitnessOf(m.GetStatus()), took)
	}
}

// fitnessOf reads a health status. A service that the peer announces and its health service does not know is one that
// nobody speaks of.
func fitnessOf(s healthpb.HealthCheckResponse_ServingStatus) fitness {
	switch s {
	case healthpb.HealthCheckResponse_SERVING:
		return serving
	case healthpb.HealthCheckResponse_NOT_SERVING:
		return notServing
	default:
		return unsaid
	}
}
