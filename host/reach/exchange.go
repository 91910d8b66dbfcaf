package reach

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"

	"github.com/lynn9388/p2p/host/reach/internal/wire"
	"github.com/lynn9388/p2p/internal/addr"
)

const (
	// exchangeWithin bounds an exchange: a round trip and a half, and the time to send small messages again.
	exchangeWithin = 10 * time.Second
	// offerWithin bounds how long an answer is held back.
	offerWithin = 1500 * time.Millisecond
	// serviceName is that of the exchange's streams in the resource manager.
	serviceName = "p2p.reach"
)

// Errors of an exchange.
var (
	errBusy = errors.New("the peer is trying by itself")
	errGone = errors.New("the relayed connection has ended")
)

// exchanged is what the two sides know after an exchange.
type exchanged struct {
	mine, theirs offer // theirs with what may be dialed of it
	role         Role
	rtt          time.Duration // over the relay
}

// attempt tries to get a direct connection to a peer.
func (j *job) attempt(base context.Context, a action) {
	ctx, stop := j.until(base, a.peer, a.id)
	defer stop()
	done := Attempt{Time: time.Now()}
	ex, err := j.begin(ctx, a)
	how := outcomeFailed
	switch {
	case errors.Is(err, errBusy):
		how = outcomeBusy
	case isStrange(err):
		how = outcomeStrange
		done.Err = "the peer does not speak this network's protocol for direct connections"
	case err != nil:
		done.Err = exchangeText(err)
	default:
		how = j.punch(base, ctx, a.peer, a.id, ex, ex.rtt/2, &done)
	}
	j.finish(ctx, a.peer, a.id, done, how)
}

// isStrange tells whether the peer does not speak the protocol: it says so, or ends the stream for what came before it
// could.
func isStrange(err error) bool {
	if errors.As(err, new(multistream.ErrNotSupported[protocol.ID])) {
		return true
	}
	reset, ok := errors.AsType[*network.StreamError](err)
	return ok && reset.Remote && reset.ErrorCode == network.StreamProtocolNegotiationFailed
}

// until returns a context that also ends when another attempt with the peer begins.
func (j *job) until(ctx context.Context, p peer.ID, id int) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	j.mu.Lock()
	defer j.mu.Unlock()
	switch old := j.ends[p]; {
	case old.id > id: // it has begun already
		cancel()
	case old.cancel != nil:
		old.cancel()
		fallthrough
	default:
		j.ends[p] = end{id, cancel}
	}
	return ctx, func() {
		cancel()
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.ends[p].id == id {
			delete(j.ends, p)
		}
	}
}

// end ends an attempt.
type end struct {
	id     int
	cancel context.CancelFunc
}

func (j *job) finish(ctx context.Context, p peer.ID, id int, done Attempt, how outcome) {
	if ctx.Err() != nil {
		return // given up
	}
	done.Took = time.Since(done.Time)
	if how != outcomeBusy {
		j.metrics.attempted(how == outcomeDirect)
		j.log.Debug("tried a direct connection", "peer", p, "role", string(done.Role), "took", done.Took, "err", done.Err)
	}
	j.input(func(c *core) { c.attempted(p, id, done, how) })
}

// begin exchanges addresses on a stream of the relayed connection. It opens the stream by itself, since the host would
// choose the connection, and say nothing of its own before the other side has agreed to the protocol.
func (j *job) begin(ctx context.Context, a action) (exchanged, error) {
	c := j.conn(a.conn)
	if c == nil {
		return exchanged{}, errGone
	}
	ctx, cancel := context.WithTimeout(ctx, exchangeWithin)
	defer cancel()
	_, realm, _ := throughRelay(c.RemoteMultiaddr())
	s, err := c.NewStream(network.WithAllowLimitedConn(ctx, "direct"))
	if err != nil {
		return exchanged{}, err
	}
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	if err := s.SetProtocol(j.protocol); err != nil {
		_ = s.Reset()
		return exchanged{}, err
	}
	if err := j.claim(s); err != nil {
		_ = s.Reset()
		return exchanged{}, err
	}
	defer s.Scope().ReleaseMemory(maxMessage)
	ex, err := j.lead(newChannel(multistream.NewMSSelect(s, j.protocol)), realm, a.try)
	if err != nil {
		_ = s.Reset()
		if ctx.Err() != nil {
			err = errors.New("no answer")
		}
		return exchanged{}, err
	}
	_ = s.Close()
	return ex, nil
}

// claim accounts for the stream's memory, and gives it a deadline.
func (j *job) claim(s network.Stream) error {
	if err := s.Scope().SetService(serviceName); err != nil {
		return err
	}
	if err := s.Scope().ReserveMemory(maxMessage, network.ReservationPriorityAlways); err != nil {
		return err
	}
	_ = s.SetDeadline(time.Now().Add(exchangeWithin)) // a stream without deadlines is reset when the context ends
	return nil
}

// lead is the exchange of the side that begins it.
func (j *job) lead(ch channel, realm addr.Scope, try int) (exchanged, error) {
	mine, near, own := j.offer(realm)
	begun := time.Now()
	if err := ch.send(mine.wire()); err != nil {
		return exchanged{}, err
	}
	theirs, err := ch.readOffer()
	rtt := time.Since(begun)
	if theirs.held < rtt {
		rtt -= theirs.held
	}
	switch {
	case err != nil:
		return exchanged{}, err
	case theirs.refusal != wire.Refusal_REFUSAL_UNSPECIFIED:
		return exchanged{}, errBusy
	}
	ex := exchanged{mine: mine, theirs: theirs, role: roleOf(mine, theirs, try), rtt: rtt}
	start := &wire.Start{Client: ex.role == RoleServer}
	if same := ex.accept(realm, own); same {
		start.Nearby = toBytes(near)
	}
	return ex, ch.send(start)
}

// answer serves an exchange that a peer begins.
func (j *job) answer(base context.Context, s network.Stream) {
	p := s.Conn().RemotePeer()
	_, realm, relayed := throughRelay(s.Conn().RemoteMultiaddr())
	if !relayed || j.core.allow != nil && !j.core.allow(p) {
		_ = s.Reset()
		return
	}
	var refusal wire.Refusal
	var id int
	j.input(func(c *core) { refusal, id = c.asks(p) })
	switch refusal {
	case wire.Refusal_REFUSAL_TOO_OFTEN: // not worth reading
		_ = s.Reset()
		return
	case wire.Refusal_REFUSAL_BUSY:
		_, _ = j.follow(base, s, time.Now(), realm, refusal)
		return
	case wire.Refusal_REFUSAL_UNSPECIFIED:
	}
	ctx, stop := j.until(base, p, id)
	defer stop()
	done := Attempt{Time: time.Now()}
	if len(j.direct(p)) > 0 && j.verify(ctx, p) {
		_ = s.Reset() // the other side will see it in a moment
		j.finish(ctx, p, id, done, outcomeBusy)
		return
	}
	ex, err := j.follow(ctx, s, done.Time, realm, refusal)
	if err != nil {
		j.finish(ctx, p, id, done, outcomeBusy) // the other side knows better what went wrong, and goes on
		return
	}
	how := j.punch(base, ctx, p, id, ex, 0, &done)
	j.finish(ctx, p, id, done, how)
}

// follow is the exchange of the side that did not begin it, which came at a moment, or its refusal.
func (j *job) follow(ctx context.Context, s network.Stream, came time.Time, realm addr.Scope, refusal wire.Refusal) (ex exchanged, err error) {
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	defer func() {
		if err != nil {
			_ = s.Reset()
			return
		}
		_ = s.Close()
	}()
	if err := j.claim(s); err != nil {
		return exchanged{}, err
	}
	defer s.Scope().ReleaseMemory(maxMessage)
	ch := newChannel(s)
	theirs, err := ch.readOffer()
	if err != nil {
		return exchanged{}, err
	}
	if refusal != wire.Refusal_REFUSAL_UNSPECIFIED {
		return exchanged{}, ch.send(offer{refusal: refusal}.wire())
	}
	mine, near, own := j.offerSoon(ctx, realm)
	mine.held = time.Since(came)
	ex = exchanged{mine: mine, theirs: theirs}
	same := ex.accept(realm, own)
	if same {
		mine.nearby = near
	}
	begun := time.Now()
	if err := ch.send(mine.wire()); err != nil {
		return exchanged{}, err
	}
	role, nearby, err := ch.readStart()
	if err != nil {
		return exchanged{}, err
	}
	ex.role, ex.rtt = role, time.Since(begun)
	if same {
		ex.theirs.nearby = pick(nearby, addr.Private, own)
	}
	return ex, nil
}

// offer returns what this host offers, what it tells a peer behind the same NAT, and its addresses, which it does not
// dial.
func (j *job) offer(realm addr.Scope) (mine offer, near, own []ma.Multiaddr) {
	j.mu.Lock()
	defer j.mu.Unlock()
	own = append(own, j.core.addrs...)
	return j.core.offerFor(realm), j.core.nearby(realm), append(own, j.core.outside()...)
}

// offerSoon returns the offer as soon as the relays have told where this host is seen. One that has just started may
// wait for that a little.
func (j *job) offerSoon(ctx context.Context, realm addr.Scope) (mine offer, near, own []ma.Multiaddr) {
	ctx, cancel := context.WithTimeout(ctx, offerWithin)
	defer cancel()
	changes := j.changes.Changes(ctx)
	for {
		mine, near, own = j.offer(realm)
		j.mu.Lock()
		j.core.now = time.Now()
		until, ready := j.core.ready()
		young := j.core.young()
		j.mu.Unlock()
		if ready && (len(mine.addrs) > 0 || !young) {
			return mine, near, own
		}
		wait := time.NewTimer(offerWithin)
		if !ready {
			wait.Reset(time.Until(until))
		}
		select {
		case <-ctx.Done():
		case <-changes:
		case <-wait.C:
		}
		if wait.Stop(); ctx.Err() != nil {
			return mine, near, own
		}
	}
}

// accept leaves of the other side's offer what may be dialed, and tells whether both are behind one NAT.
func (ex *exchanged) accept(realm addr.Scope, own []ma.Multiaddr) (same bool) {
	same = sameNAT(ex.mine.addrs, ex.theirs.addrs)
	ex.theirs.addrs = pick(ex.theirs.addrs, realm, own)
	if !same {
		ex.theirs.nearby = nil
		return false
	}
	ex.theirs.nearby = pick(ex.theirs.nearby, addr.Private, own)
	return true
}
