package mdns

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"
	corenet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
)

const (
	// queueLength bounds the packets that wait for the loop.
	queueLength = 128
	// The intervals between queries: while a peer was lost a short time ago, while one is still missed or nobody is
	// there, and at rest. A query takes about 80 bytes and 27 for each known node, and an answer about 600, which a
	// node gives every five minutes at rest: on a link with two nodes, 0.3 MB a day per node and family of addresses;
	// with 31 nodes 1.5 MB. Alone a node sends 0.7 MB a day.
	lostInterval, aloneInterval, restInterval = 2 * time.Second, 10 * time.Second, time.Minute
	// lostFor is how long a loss makes the source ask often.
	lostFor = 3 * time.Minute
	// reopenInterval is how soon a socket that could not be opened is tried again.
	reopenInterval = 5 * time.Second
	// tidyInterval is how often what is old is looked for and the state is judged again, at least.
	tidyInterval = time.Second
	// tidyGap is the least time between two such looks, however many packets come in.
	tidyGap = 50 * time.Millisecond
)

// A run is one Run of a source. All its fields belong to the loop.
type run struct {
	*Source
	host     corehost.Host
	self     peer.ID
	found    func(peer.AddrInfo)
	instance string

	began    time.Time
	ifaces   []host.Interface
	known    bool // ifaces were seen
	links    map[linkID]*link
	table    *table
	addrs    []ma.Multiaddr // of the host, as last planned
	planned  time.Time
	reopened time.Time
	tidied   time.Time     // zero: look at once
	interval time.Duration // between queries, as of then

	doubt   Reason // the reason found last, and since when: it is told when it lasts
	doubted time.Time

	packets chan packet
	readers readers
	events  event.Subscription
}

func newRun(s *Source, h corehost.Host, found func(peer.AddrInfo)) (*run, error) {
	events, err := h.EventBus().Subscribe(
		[]any{new(event.EvtPeerConnectednessChanged), new(event.EvtLocalAddressesUpdated)}, eventbus.BufSize(256))
	if err != nil {
		return nil, fmt.Errorf("mdns: follow the host: %w", err)
	}
	return &run{
		Source: s, host: h, self: h.ID(), found: found, events: events,
		instance: strings.ToLower(rand.Text()[:12]),
		links:    map[linkID]*link{},
		table:    newTable(),
		packets:  make(chan packet, queueLength),
		readers:  readers{stop: make(chan struct{})},
	}, nil
}

// loop runs until ctx ends. The order of the end: goodbyes, sockets, then the wait for every goroutine.
func (r *run) loop(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := make(chan []host.Interface)
	watched := make(chan error, 1)
	r.readers.Go(func() {
		watched <- r.net.watch(ctx, func(ifaces []host.Interface) {
			select {
			case changes <- slices.Clone(ifaces):
			case <-ctx.Done():
			}
		})
	})
	defer r.end(cancel)

	r.began = time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-watched:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("mdns: %w", errors.Join(errors.New("the interfaces cannot be watched"), err))
		case ifaces := <-changes:
			r.ifaces, r.known = ifaces, true
			r.plan(time.Now())
		case p := <-r.packets:
			r.hear(p, time.Now())
		case e, ok := <-r.events.Out():
			if !ok {
				return errors.New("mdns: the host has ended")
			}
			r.event(e, time.Now())
		case <-r.refresh:
			r.askAll(time.Now())
		case <-timer.C:
		}
		timer.Reset(time.Until(r.work(time.Now())))
	}
}

func (r *run) end(cancel context.CancelFunc) {
	cancel()
	close(r.readers.stop)
	for _, l := range r.links {
		r.close(l)
	}
	r.readers.Wait()
	_ = r.events.Close()
	r.setState(State{Reason: Stopped, Text: textStopped, Since: time.Now()})
}

// event takes note of what has happened to the host.
func (r *run) event(e any, now time.Time) {
	switch e := e.(type) {
	case event.EvtPeerConnectednessChanged:
		if r.table.connection(e.Peer, e.Connectedness == corenet.Connected, now) {
			r.askAll(now)
		}
		r.tidied = time.Time{}
	case event.EvtLocalAddressesUpdated:
		r.plan(now)
	}
}

func (r *run) askAll(now time.Time) {
	for _, l := range r.links {
		l.ask(now)
	}
}

// plan opens and closes links so that they are as they should be now.
func (r *run) plan(now time.Time) {
	if !r.known {
		return
	}
	r.addrs = r.net.addrs(r.host)
	r.planned = now
	want := planLinks(r.ifaces, r.addrs)
	for id, l := range r.links {
		if _, ok := want[id]; !ok {
			r.close(l)
			delete(r.links, id)
			r.table.forget(id.index)
		}
	}
	for id, p := range want {
		l := r.links[id]
		if l == nil {
			l = &link{id: id}
			r.links[id] = l
		}
		if changed := l.change(p); changed || l.conn == nil {
			if l.conn != nil || r.open(l) {
				l.start(now)
			}
		}
	}
	r.reopened = now
}

// open opens a link's socket and starts its reader, or notes why not.
func (r *run) open(l *link) bool {
	c, err := r.net.open(l.id, l.iface)
	if l.err = err; err != nil {
		r.log.Debug("cannot use the interface", "interface", l.iface.Name, "err", err)
		return false
	}
	l.conn = c
	r.readers.Go(func() { readLoop(l, c, r.names, r.packets, r.readers.stop) })
	return true
}

// close says goodbye on a link and closes it.
func (r *run) close(l *link) {
	if l.conn == nil {
		return
	}
	if len(l.addrs) > 0 && !l.answered.IsZero() {
		if b, _, err := r.names.packAnswer(r.instance, r.self, nil, true); err == nil {
			_ = l.conn.write(b)
		}
	}
	_ = l.conn.close()
	l.conn = nil
}

// work does what is due and returns when the next thing will be.
func (r *run) work(now time.Time) time.Time {
	next := now.Add(tidyInterval)
	if r.tidied.IsZero() || now.Sub(r.tidied) >= tidyGap {
		r.tidy(now)
	} else {
		next = r.tidied.Add(tidyGap)
	}
	if r.known && (r.stale(now) || now.Sub(r.reopened) >= reopenInterval && r.anyClosed()) {
		r.plan(now)
	}
	for _, l := range r.links {
		if l.conn == nil {
			continue
		}
		if l.answerDue(now) {
			r.sendAnswer(l, now)
		}
		if at := l.asked.Add(r.interval + r.interval/10); l.queryAt.After(at) {
			l.queryAt = at // the interval has become shorter
		}
		if l.queryDue(now) {
			r.sendQuery(l, now)
		}
		if at := l.next(); at.Before(next) {
			next = at
		}
	}
	return next
}

// tidy removes what is old and takes stock.
func (r *run) tidy(now time.Time) {
	r.table.expire(now)
	r.interval = r.nextInterval(now)
	r.judge(now)
	r.tidied = now
	if r.table.recovered(now) {
		r.askAll(now)
	}
}

// stale tells whether something is due on a link whose addresses were looked up a while ago: the host's list may
// follow a change of an interface a moment later than the interface.
func (r *run) stale(now time.Time) bool {
	if now.Sub(r.planned) < answerGap/2 {
		return false
	}
	for _, l := range r.links {
		if l.conn != nil && (l.answerDue(now) || l.queryDue(now)) {
			return true
		}
	}
	return len(r.links) == 0 && now.Sub(r.planned) >= tidyInterval
}

func (r *run) anyClosed() bool {
	for _, l := range r.links {
		if l.conn == nil {
			return true
		}
	}
	return false
}

// nextInterval is the time between queries from now on.
func (r *run) nextInterval(now time.Time) time.Duration {
	lost := r.table.lastLost()
	switch {
	case !lost.IsZero() && now.Sub(lost) < lostFor:
		return lostInterval
	case !lost.IsZero() || r.table.count(0) == 0:
		return aloneInterval
	default:
		return restInterval
	}
}

// sendQuery asks on a link. The node itself is among the known, so that it does not answer its own query.
func (r *run) sendQuery(l *link, now time.Time) {
	known := append([]string{r.instance}, r.table.known(l.id.index, l.changed, now)...)
	if b, err := r.names.packQuery(known); err != nil {
		r.log.Debug("cannot make a query", "err", err)
	} else {
		l.write(b, now)
	}
	l.queryDone(now, r.interval)
}

func (r *run) sendAnswer(l *link, now time.Time) {
	if len(l.addrs) > 0 {
		b, left, err := r.names.packAnswer(r.instance, r.self, l.addrs, false)
		switch {
		case err != nil:
			r.log.Debug("cannot make an announcement", "err", err)
		case left > 0:
			r.log.Debug("addresses left out of the announcement", "interface", l.iface.Name, "left", left)
			fallthrough
		default:
			l.write(b, now)
		}
	}
	l.answerDone(now)
}
