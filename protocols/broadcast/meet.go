package broadcast

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
)

const (
	// settling is for how long after the start every peer that connects is asked, whatever identify says of it: what
	// identify says lags behind the handlers of a busy machine, on both sides.
	settling = 10 * time.Second
	// askAgain is how long a neighbor that sends, but to which there is no stream, is left alone before it is asked
	// again; each time in a row twice as long, up to maxAskAgain.
	askAgain    = time.Second
	maxAskAgain = time.Minute
)

// meeting tells GossipSub whom to open a stream to. GossipSub itself asks the peers that are connected when it starts, and
// then goes by what identify says. That is not enough: identify's news may be late, and libp2p drops them when they come
// from many neighbors of one network at once. A stream from a neighbor says the same and cannot be missed.
type meeting struct {
	gate  *gate
	mesh  protocol.ID
	news  event.Subscription // the host's
	bus   event.Bus          // GossipSub's
	tell  event.Emitter
	begun time.Time
	kick  chan struct{} // a stream came from a peer to which there is none
}

func newMeeting(g *gate, mesh protocol.ID) (*meeting, error) {
	m := &meeting{gate: g, mesh: mesh, bus: eventbus.NewBus(), begun: time.Now(), kick: make(chan struct{}, 1)}
	var err error
	if m.tell, err = m.bus.Emitter(new(event.EvtPeerProtocolsUpdated)); err != nil {
		return nil, err
	}
	m.news, err = g.Host.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted),
		new(event.EvtPeerProtocolsUpdated),
	}, eventbus.BufSize(256), eventbus.Name("broadcast"))
	return m, err
}

// run follows the host's events and the streams until ctx ends.
func (m *meeting) run(ctx context.Context) {
	defer m.news.Close()
	tick := time.NewTicker(askAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-m.news.Out():
			switch e := e.(type) {
			case event.EvtPeerIdentificationCompleted:
				if time.Since(m.begun) < settling || slices.Contains(e.Protocols, m.mesh) {
					m.ask(e.Peer)
				}
			case event.EvtPeerProtocolsUpdated:
				if slices.Contains(e.Added, m.mesh) {
					m.ask(e.Peer)
				}
			}
			continue
		case <-m.kick:
		case <-tick.C:
		}
		for _, p := range m.gate.unanswered(time.Now()) {
			m.ask(p)
		}
	}
}

// ask makes GossipSub open a stream, unless it has one or is about to.
func (m *meeting) ask(p peer.ID) {
	_ = m.tell.Emit(event.EvtPeerProtocolsUpdated{Peer: p, Added: []protocol.ID{m.mesh}})
}

// came takes in that a peer has opened a stream.
func (m *meeting) came() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// unanswered are the peers that have opened a stream, but to whom there is none, and whose turn it is to be asked; and
// those whose time of being cut off is over.
func (g *gate) unanswered(now time.Time) []peer.ID {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []peer.ID
	for p, guest := range g.guests {
		waits := guest.streams > 0 && guest.outbound == 0 && !now.Before(guest.again)
		back := guest.away && !now.Before(guest.until)
		if !waits && !back {
			continue
		}
		guest.away = guest.away && !back
		if now.Sub(guest.again) > maxAskAgain { // the last time is long ago
			guest.asks = 0
		}
		guest.again = now.Add(min(askAgain<<guest.asks, maxAskAgain))
		guest.asks = min(guest.asks+1, 10)
		out = append(out, p)
	}
	return out
}

// reaches tells whether there is a stream to a peer.
func (g *gate) reaches(p peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	guest := g.guests[p]
	return guest != nil && guest.outbound > 0
}
