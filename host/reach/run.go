package reach

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/idle"
)

const (
	// lookEvery is how often the host's own addresses are looked at.
	lookEvery = time.Second
	// protectTag is the mark in the connection manager: connections to relays are never closed for being many.
	protectTag = "p2p-relay"
)

// Run keeps the host reachable until ctx ends, and returns nil then. It leaves the connections open: they end with the
// host. It may be called once.
func (r *Reach) Run(ctx context.Context) error {
	r.mu.Lock()
	if r.begun {
		r.mu.Unlock()
		return errors.New("reach: it runs already, or has run")
	}
	r.begun = true
	r.mu.Unlock()
	defer r.changes.Close()
	j := &job{Reach: r}
	var err error
	if j.circuits, err = r.h.EventBus().Emitter(new(event.EvtAutoRelayAddrsUpdated), eventbus.Stateful); err != nil {
		return fmt.Errorf("reach: announce relays to the host: %w", err)
	}
	defer func() { _ = j.circuits.Close() }()
	if j.reachable, err = r.h.EventBus().Emitter(new(event.EvtLocalReachabilityChanged), eventbus.Stateful); err != nil {
		return fmt.Errorf("reach: tell the host whether it is public: %w", err)
	}
	defer func() { _ = j.reachable.Close() }()
	sub, err := r.h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted), eventbus.BufSize(1024), eventbus.Name("reach"))
	if err != nil {
		return fmt.Errorf("reach: follow the host's events: %w", err)
	}
	defer j.wg.Wait()
	defer func() { _ = sub.Close() }() // ends the reader below
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	j.wg.Go(func() {
		for e := range sub.Out() {
			if e, ok := e.(event.EvtPeerIdentificationCompleted); ok {
				r.identified(e)
			}
		}
	})
	stop := j.accept(ctx)
	defer stop()

	notify := &network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { r.connected(c) },
		DisconnectedF: func(_ network.Network, c network.Conn) { r.disconnected(c) },
		ListenF:       func(network.Network, ma.Multiaddr) { r.lookSoon() },
		ListenCloseF:  func(network.Network, ma.Multiaddr) { r.lookSoon() },
	}
	r.h.Network().Notify(notify)
	defer r.h.Network().StopNotify(notify)
	for _, info := range r.core.relays {
		r.h.ConnManager().Protect(info.id, protectTag)
		defer r.h.ConnManager().Unprotect(info.id, protectTag)
	}
	r.input(func(c *core) { c.begun = c.now })
	r.look()
	for _, c := range r.h.Network().Conns() { // those that were there before
		r.connected(c)
	}
	j.loop(ctx)
	return nil
}

// job is one run.
type job struct {
	*Reach
	wg        sync.WaitGroup
	circuits  event.Emitter
	reachable event.Emitter
	teller    teller
}

// accept serves exchanges that peers begin, until the function it returns is called.
func (j *job) accept(ctx context.Context) (stop func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.serve = func(s network.Stream) {
		j.mu.Lock()
		if j.serve == nil { // it has ended since
			j.mu.Unlock()
			_ = s.Reset()
			return
		}
		j.wg.Add(1)
		j.mu.Unlock()
		defer j.wg.Done()
		j.answer(ctx, s)
	}
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.serve = nil
	}
}

// input gives the core something that happened.
func (r *Reach) input(f func(c *core)) {
	r.mu.Lock()
	r.core.now = time.Now()
	f(r.core)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// lookSoon has the host's addresses looked at.
func (r *Reach) lookSoon() {
	select {
	case r.listens <- struct{}{}:
	default:
	}
}

// loop does what the core wants until ctx ends.
func (j *job) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	looks := time.NewTicker(lookEvery)
	defer looks.Stop()
	for slept := (sleep{}); ; {
		j.mu.Lock()
		j.core.now = time.Now()
		next := j.core.tick()
		out, changed := j.core.out, j.core.changed
		j.core.out, j.core.changed = nil, false
		j.mu.Unlock()
		for _, a := range out {
			j.perform(ctx, a)
		}
		if changed {
			j.tell(time.Now())
			j.changes.Publish(struct{}{})
		}
		timer.Reset(max(time.Until(next), time.Millisecond))
		select {
		case <-ctx.Done():
			return
		case <-j.wake:
		case <-timer.C:
		case <-j.listens:
			j.look()
		case now := <-looks.C:
			if slept.since(now) {
				j.log.Debug("the machine slept")
				j.input((*core).disturbed)
			}
			j.look()
			j.wg.Go(j.letGo)
		}
	}
}

func (j *job) perform(ctx context.Context, a action) {
	switch a.kind {
	case actDial:
		j.wg.Go(func() { j.dialRelay(ctx, a) })
	case actPing:
		j.wg.Go(func() { j.ping(ctx, a) })
	case actClose:
		if c := j.conn(a.conn); c != nil {
			j.wg.Go(func() {
				j.log.Debug("closing a connection to a relay that does not answer", "peer", c.RemotePeer(), "addr", c.RemoteMultiaddr())
				_ = c.Close()
			})
		}
	case actRetire:
		if c := j.conn(a.conn); c != nil && idle.Conn(c) {
			j.wg.Go(func() {
				j.log.Debug("closing a connection to a relay that another has replaced", "peer", c.RemotePeer(), "addr", c.RemoteMultiaddr(), "local", c.LocalMultiaddr())
				_ = c.Close()
			})
		}
	case actReserve:
		j.wg.Go(func() { j.reserve(ctx, a.peer) })
	case actProbe:
		j.wg.Go(func() { j.probe(ctx, a) })
	case actAnnounce:
		j.announce(a)
	case actVerify:
		j.wg.Go(func() { j.verify(ctx, a.peer) })
	case actAttempt:
		j.wg.Go(func() { j.attempt(ctx, a) })
	}
}

// announce tells libp2p, whose address list goes by both events.
func (j *job) announce(a action) {
	j.log.Debug("announcing", "reachability", a.public.String(), "addrs", a.addrs)
	if err := j.reachable.Emit(event.EvtLocalReachabilityChanged{Reachability: a.public}); err != nil {
		j.log.Debug("tell the host whether it is public", "err", err)
	}
	if err := j.circuits.Emit(event.EvtAutoRelayAddrsUpdated{RelayAddrs: a.addrs}); err != nil {
		j.log.Debug("announce relays to the host", "err", err)
	}
}

func (r *Reach) conn(id string) network.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns[id]
}

// connected takes a new connection.
func (r *Reach) connected(c network.Conn) {
	p := c.RemotePeer()
	r.input(func(co *core) {
		if c.IsClosed() { // and told of already, perhaps
			return
		}
		r.conns[c.ID()] = c
		if _, _, relayed := throughRelay(c.RemoteMultiaddr()); !relayed {
			if co.relayOf(p) != nil {
				r.log.Debug("connected to a relay", "peer", p, "addr", c.RemoteMultiaddr(), "local", c.LocalMultiaddr())
			}
			co.linkUp(c.ID(), p, c.RemoteMultiaddr(), portOf(c.LocalMultiaddr()))
		}
		r.paths(co, p)
	})
}

func (r *Reach) disconnected(c network.Conn) {
	p := c.RemotePeer()
	r.input(func(co *core) {
		delete(r.conns, c.ID())
		if co.links[c.ID()] != nil {
			r.log.Debug("disconnected from a relay", "peer", p, "addr", c.RemoteMultiaddr(), "local", c.LocalMultiaddr(), "after", time.Since(c.Stat().Opened))
		}
		co.linkDown(c.ID())
		r.paths(co, p)
	})
}

// paths tells the core of all connections to p, and those who wait of a direct one. The caller holds the lock.
func (r *Reach) paths(co *core, p peer.ID) {
	var relayed []carried
	direct := 0
	for _, c := range r.h.Network().ConnsToPeer(p) {
		relay, realm, ok := throughRelay(c.RemoteMultiaddr())
		switch {
		case c.IsClosed():
		case ok:
			relayed = append(relayed, carried{c.ID(), relay, realm, c.Stat().Direction == network.DirOutbound})
		default:
			direct++
		}
	}
	co.paths(p, relayed, direct)
	if direct > 0 {
		for _, w := range r.waiting[p] {
			close(w)
		}
		delete(r.waiting, p)
	}
}

// identified takes what a peer says of a connection.
func (r *Reach) identified(e event.EvtPeerIdentificationCompleted) {
	if e.Conn == nil {
		return
	}
	r.input(func(c *core) {
		if !e.Conn.IsClosed() {
			c.sighted(e.Conn.ID(), e.Peer, e.Conn.RemoteMultiaddr(), e.Conn.LocalMultiaddr(), e.ObservedAddr)
		}
	})
}
