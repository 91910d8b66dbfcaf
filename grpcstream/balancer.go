package grpcstream

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"
)

// This file is all that sees package balancer, which is experimental: it makes the hub's choice gRPC's choice. A
// SubConn here lives for one connection and is replaced by a new one, so that when to dial again is the hub's affair
// alone.

// balancerName is the name under which the channel's service config asks for the balancer. gRPC keeps names in lower
// case.
const balancerName = "p2p_hub"

func init() { //nolint:gochecknoinits // gRPC looks balancers up by name in a table that may be written in init only
	balancer.Register(balancerBuilder{})
}

// hubKey is the key of the channel's hub in the attributes of its resolver's state.
type hubKey struct{}

// linkKey is the key of a link in the attributes of its address.
type linkKey struct{}

// linkFrom returns the link that is being dialed or greeted, or nil.
func linkFrom(ctx context.Context) *link {
	l, _ := credentials.ClientHandshakeInfoFromContext(ctx).Attributes.Value(linkKey{}).(*link)
	return l
}

type balancerBuilder struct{}

func (balancerBuilder) Name() string { return balancerName }

func (balancerBuilder) Build(cc balancer.ClientConn, _ balancer.BuildOptions) balancer.Balancer {
	return &hubBalancer{cc: cc}
}

// hubBalancer is the wire of a hub over gRPC.
type hubBalancer struct {
	cc  balancer.ClientConn
	hub *hub
}

// subConn is what the balancer keeps of a link.
type subConn struct {
	sc       balancer.SubConn
	done     func(balancer.DoneInfo) // made once, so that a call costs no closure
	counted  func(balancer.DoneInfo) // of a call that was counted as unary
	shutdown sync.Once
}

func (b *hubBalancer) UpdateClientConnState(s balancer.ClientConnState) error {
	if b.hub == nil {
		h, ok := s.ResolverState.Attributes.Value(hubKey{}).(*hub)
		if !ok {
			return balancer.ErrBadResolverState
		}
		b.hub = h
		h.attach(b)
	}
	b.wake()
	return nil
}

func (b *hubBalancer) ResolverError(error) {}

func (b *hubBalancer) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

func (b *hubBalancer) ExitIdle() {}

func (b *hubBalancer) Close() {
	if b.hub != nil {
		b.hub.close()
	}
}

// connect implements wire.
func (b *hubBalancer) connect(l *link) error {
	name := l.peer.id.String()
	sc, err := b.cc.NewSubConn([]resolver.Address{{ //nolint:staticcheck // only its use with several addresses is deprecated
		Addr:       name,
		ServerName: name,
		Attributes: withPeerAttribute(attributes.New(linkKey{}, l), l.peer.id),
	}}, balancer.NewSubConnOptions{
		StateListener: func(s balancer.SubConnState) { b.changed(l, s) },
	})
	if err != nil {
		return err
	}
	done := func(i balancer.DoneInfo) {
		l.done(i.BytesReceived)
		b.hub.judge(l.peer, outcomeOf(i))
	}
	l.conn = &subConn{sc: sc, done: done, counted: func(i balancer.DoneInfo) {
		l.unary.Add(-1)
		done(i)
	}}
	sc.Connect()
	return nil
}

var errEndedEarly = errors.New("the connection ended while it was being set up")

// changed takes the states of a link's SubConn. gRPC calls it for one at a time.
func (b *hubBalancer) changed(l *link, s balancer.SubConnState) {
	switch s.ConnectivityState {
	case connectivity.Ready:
		b.hub.up(l)
	case connectivity.TransientFailure:
		b.hub.down(l, s.ConnectionError)
	case connectivity.Idle:
		err := s.ConnectionError
		if err == nil {
			err = errEndedEarly
		}
		b.hub.down(l, err)
	case connectivity.Connecting, connectivity.Shutdown:
	}
}

// disconnect implements wire. The calls on the SubConn go on to their end.
func (b *hubBalancer) disconnect(l *link) {
	if s, ok := l.conn.(*subConn); ok {
		s.shutdown.Do(s.sc.Shutdown)
	}
}

// wake implements wire. The state of the channel says nothing: it is ready to take calls.
func (b *hubBalancer) wake() {
	b.cc.UpdateState(balancer.State{ConnectivityState: connectivity.Ready, Picker: hubPicker{b.hub}})
}

// hubPicker asks the hub.
type hubPicker struct{ hub *hub }

func (p hubPicker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	c := callFrom(info.Ctx)
	if c == nil {
		return balancer.PickResult{}, errLostCall
	}
	l, v := p.hub.pick(c, info.FullMethodName)
	switch v {
	case picked:
		s, ok := l.conn.(*subConn)
		switch {
		case ok && c.unary && l.path == PathRelay:
			l.unary.Add(1)
			return balancer.PickResult{SubConn: s.sc, Done: s.counted}, nil
		case ok:
			return balancer.PickResult{SubConn: s.sc, Done: s.done}, nil
		}
		l.done(false)
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
	case gaveUp:
		return balancer.PickResult{}, p.hub.explain(c, info.FullMethodName)
	default:
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
	}
}

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
