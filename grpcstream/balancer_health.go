package grpcstream

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const (
	watchPause    = time.Second      // before a health watch that ended is begun anew; doubled each time
	watchPauseMax = 30 * time.Second // and at most
)

// outcomeOf reads what the end of a call tells of the peer. That an instance is not available, whoever says so, and that
// nothing came from it until the deadline, speak against it; every other error is an answer.
func outcomeOf(i balancer.DoneInfo) outcome {
	code := status.Code(i.Err)
	if code == codes.Unknown && !i.BytesReceived {
		code = status.FromContextError(i.Err).Code()
	}
	switch {
	case !i.BytesSent:
		return neither
	case code == codes.Unavailable, code == codes.DeadlineExceeded && !i.BytesReceived:
		return missed
	case i.BytesReceived:
		return answered
	default:
		return neither
	}
}

// ask implements wire. A producer is gRPC's way to calls on one SubConn; it ends with the SubConn's connection.
func (b *hubBalancer) ask(q *probe, ended func()) {
	s, ok := q.link.conn.(*subConn)
	if !ok {
		ended()
		return
	}
	w := &watcher{probe: q, hub: b.hub, built: make(chan struct{})}
	w.ended = func() {
		<-w.built
		w.release()
		ended()
	}
	_, w.release = s.sc.GetOrBuildProducer(w)
	close(w.built)
}

// A watcher asks one instance for its health, over its SubConn. It is its own balancer.ProducerBuilder, of one
// producer only.
type watcher struct {
	probe   *probe
	hub     *hub
	ended   func()
	release func()
	built   chan struct{} // closed when release is set
}

// Build implements balancer.ProducerBuilder.
func (w *watcher) Build(cc any) (balancer.Producer, func()) {
	go func() {
		defer w.ended()
		if cc, ok := cc.(grpc.ClientConnInterface); ok {
			w.run(w.probe.ctx, healthpb.NewHealthClient(cc))
		}
	}()
	return w, w.probe.cancel
}

// run watches until ctx ends, or the peer says that it does not speak of health.
func (w *watcher) run(ctx context.Context, client healthpb.HealthClient) {
	known := false
	for pause := watchPause; ; pause = min(2*pause, watchPauseMax) {
		said, err := w.watch(ctx, client)
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

// watch passes on what one watch says, until it ends.
func (w *watcher) watch(ctx context.Context, client healthpb.HealthClient) (said bool, err error) {
	begun := time.Now()
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
	case healthpb.HealthCheckResponse_UNKNOWN, healthpb.HealthCheckResponse_SERVICE_UNKNOWN:
		return unsaid
	default:
		return unsaid
	}
}
