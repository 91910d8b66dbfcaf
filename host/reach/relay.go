package reach

import (
	"context"
	"errors"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	pbv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/safetext"
)

const (
	// familyStep is the head start of IPv4 over IPv6 in a dial to a relay: only where IPv4 works does the relay see the
	// address that a NAT has given out, and IPv6 mostly has none in front of it (RFC 8305 uses the same figure).
	familyStep = 250 * time.Millisecond
	// reserveWithin bounds a request for a reservation, which takes one round trip.
	reserveWithin = 3 * time.Second
)

// dialRelay connects to a relay over one transport.
func (j *job) dialRelay(ctx context.Context, a action) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	four, six := byFamily(a.addrs)
	err := staggered(ctx, familyStep, four, six, func(ctx context.Context, addrs []ma.Multiaddr) error {
		_, err := host.DialVia(ctx, j.h, peer.AddrInfo{ID: a.peer, Addrs: addrs})
		return err
	})
	text := ""
	if err != nil {
		text = dialText(err)
	}
	j.log.Debug("dialed a relay", "peer", a.peer, "transport", a.via.String(), "err", text)
	j.metrics.dialed(a.via, err)
	j.input(func(c *core) { c.dialed(a.peer, a.via, text) })
}

// byFamily splits addresses by the version of IP; a name stands for both. WebSocket addresses are the first, since a
// proxy may be what looks up the names.
func byFamily(addrs []ma.Multiaddr) (four, six []ma.Multiaddr) {
	as := func(code int, a ma.Multiaddr) ma.Multiaddr {
		first, err := ma.NewComponent(ma.ProtocolWithCode(code).Name, a[0].Value())
		if err != nil { // it was a name before
			return a
		}
		return first.Multiaddr().Encapsulate(a[1:])
	}
	for _, a := range addrs {
		switch code := a[0].Protocol().Code; {
		case kindOf(a) == kindWebSocket:
			four = append(four, a)
		case code == ma.P_IP6, code == ma.P_DNS6, code == ma.P_IP6ZONE:
			six = append(six, a)
		case code == ma.P_DNS && len(a) > 1:
			four, six = append(four, as(ma.P_DNS4, a)), append(six, as(ma.P_DNS6, a))
		default:
			four = append(four, a)
		}
	}
	return four, six
}

// staggered calls f with the first addresses, and after a while or when that failed with the second as well, until one
// call succeeds.
func staggered(ctx context.Context, step time.Duration, first, second []ma.Multiaddr, f func(context.Context, []ma.Multiaddr) error) error {
	if len(first) == 0 || len(second) == 0 {
		return f(ctx, append(first, second...))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, 2)
	failed := make(chan struct{})
	go func() {
		err := f(ctx, first)
		if err != nil {
			close(failed)
		}
		results <- err
	}()
	go func() {
		timer := time.NewTimer(step)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-failed:
		case <-ctx.Done():
		}
		results <- f(ctx, second)
	}()
	var errs []error
	for range 2 {
		err := <-results
		if err == nil {
			cancel()
			continue
		}
		errs = append(errs, err)
	}
	if len(errs) < 2 {
		return nil
	}
	return errors.Join(errs...)
}

// ping looks whether a connection to a relay works.
func (j *job) ping(ctx context.Context, a action) {
	c := j.conn(a.conn)
	if c == nil {
		return // its end was told of
	}
	pctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	rtt, err := host.Ping(pctx, c)
	alive := err == nil || pctx.Err() == nil && !c.IsClosed() // it refuses to answer, so it is there
	if ctx.Err() == nil {
		j.input(func(co *core) { co.pinged(a.conn, rtt, alive) })
	}
}

// reserve asks a relay for a reservation.
func (j *job) reserve(base context.Context, p peer.ID) {
	ctx, cancel := context.WithTimeout(network.WithNoDial(base, "reserve"), reserveWithin)
	defer cancel()
	h := &ending{Host: j.h, opened: func(s network.Stream) func() bool {
		return context.AfterFunc(ctx, func() { _ = s.Reset() })
	}}
	got, err := client.Reserve(ctx, h, peer.AddrInfo{ID: p})
	h.stop()
	if base.Err() != nil {
		return
	}
	j.metrics.reserved(err)
	if err != nil {
		text, refused := reserveText(err)
		j.log.Debug("no reservation", "peer", p, "err", text)
		j.input(func(c *core) { c.reserved(p, reservation{}, text, refused) })
		return
	}
	res := reservation{expires: got.Expiration, data: got.LimitData, duration: got.LimitDuration}
	for _, a := range got.Addrs {
		if at, _ := peer.SplitAddr(a); at != nil && len(res.addrs) < maxCircuits {
			res.addrs = append(res.addrs, at)
		}
	}
	j.input(func(c *core) { c.reserved(p, res, "", false) })
}

// ending is a host whose one new stream is reset when a context ends: libp2p's client waits for a minute.
type ending struct {
	corehost.Host
	opened func(network.Stream) (stop func() bool)
	stops  func() bool
}

// NewStream implements [corehost.Host].
func (e *ending) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := e.Host.NewStream(ctx, p, ids...)
	if err == nil {
		e.stops = e.opened(s)
	}
	return s, err
}

func (e *ending) stop() {
	if e.stops != nil {
		e.stops()
	}
}

// reserveText says in one line why there is no reservation, and whether the relay itself said no.
func reserveText(err error) (text string, refused bool) {
	re, ok := errors.AsType[client.ReservationError](err)
	if !ok {
		return safetext.Clean(err.Error()), false
	}
	switch re.Status { //nolint:exhaustive // the others are no answer
	case pbv2.Status_PERMISSION_DENIED:
		return "it refuses a reservation: put this node's ID on its allow list", true
	case pbv2.Status_RESERVATION_REFUSED, pbv2.Status_RESOURCE_LIMIT_EXCEEDED:
		return "it has no reservation left: it is full, or its limit for this IP address is reached", true
	}
	if _, ok := errors.AsType[multistream.ErrNotSupported[protocol.ID]](err); ok {
		return "it is no relay: run it with the relay profile", true
	}
	return "reservation: " + safetext.Clean(re.Reason), false
}

// probe asks a relay to dial one of the host's addresses.
func (j *job) probe(ctx context.Context, a action) {
	reached, err := host.Probe(ctx, j.h, a.peer, a.addr)
	if ctx.Err() != nil {
		return
	}
	j.log.Debug("probed", "addr", a.addr, "peer", a.peer, "reached", reached, "err", err)
	j.input(func(c *core) { c.probed(a.peer, a.addr, reached, err != nil) })
}
