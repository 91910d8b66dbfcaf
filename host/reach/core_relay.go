package reach

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// The figures of keeping relays, each with its reason.
const (
	// A relay that is away is dialed again after the first pause, twice as long after each failure, and at least as often
	// as the longest: a relay that is back is noticed within a few seconds, and a dead one costs a few packets.
	pauseFirst = 100 * time.Millisecond
	pauseAway  = 2 * time.Second
	// pauseMore is the longest pause between dials over a second transport while the first works.
	pauseMore = time.Minute
	// pauseRefused is the longest after connections that did not last: such a relay lets this host in no further.
	pauseRefused = 15 * time.Second
	// lasting is how long a connection must last for its end to be no refusal.
	lasting = 3 * time.Second
	// listenWithin is how long a host that does not listen yet is waited for: what it dials before leaves from other ports.
	listenWithin = time.Second
	// dialWithin bounds one dial, so that a relay that came back while one was waiting is dialed anew: the last packets of
	// QUIC and TCP go out at 1.4 s and 1 s. Each third may take longer, for a line as slow as a satellite's and for names
	// that are slow to be found, or each ninth if the relay was nearer than nearby.
	dialWithin = 2 * time.Second
	dialSlowly = 8 * time.Second
	nearby     = 300 * time.Millisecond
	// webSocketAfter is how long TCP and QUIC are tried before WebSocket, which costs the relay more, is tried too.
	webSocketAfter = time.Second
	// webSocketIdle is how long a WebSocket connection stays beside others.
	webSocketIdle = 30 * time.Second

	// A reservation is asked for again at least this often, and no later than after a third of its time: a relay may
	// have lost it without losing the connection.
	reserveEvery = 5 * time.Minute
	// reserveGap is the least time between two requests.
	reserveGap = 500 * time.Millisecond
	// reserveSlow is the longest pause after a refusal.
	reserveSlow = 30 * time.Second

	// circuitLinger is how long a relay's circuit addresses stay announced after its last connection ended: one that is
	// back soon has changed nothing for others.
	circuitLinger = 5 * time.Second
)

// relay is what is known of one relay.
type relay struct {
	id    peer.ID
	addrs []ma.Multiaddr
	slots [kinds]slot
	since time.Time // connected, or not, since then
	lost  time.Time // when the last TCP or QUIC connection was lost, or the first dial began
	used  time.Time // when it last was connected and held a reservation
	rtt   time.Duration

	at map[place]ma.Multiaddr // where it was last connected

	asking      bool // for a reservation
	asked       time.Time
	ask         time.Time // when to ask next
	refusals    int
	held        bool
	expires     time.Time
	circuits    []ma.Multiaddr // addresses of the relay at which others find it
	data        uint64
	duration    time.Duration
	shown       []ma.Multiaddr // circuit addresses as announced
	reserveText string         // why there is no reservation
}

// place is a transport and a version of IP.
type place struct {
	kind kind
	four bool
}

// slot keeps one connection over one transport.
type slot struct {
	addrs   []ma.Multiaddr
	dialing bool
	fails   int
	short   bool // the last connection did not last
	next    time.Time
	fresh   bool // wanted although there is one
	guessed bool // nobody said that the relay listens there

	makeshifts int // in a row
	text       string
}

func (r *relay) add(addrs []ma.Multiaddr) {
	for _, a := range addrs {
		if slices.ContainsFunc(r.addrs, a.Equal) {
			continue
		}
		r.addrs = append(r.addrs, a)
		if k := kindOf(a); k != kindNone {
			r.slots[k].addrs = append(r.slots[k].addrs, a)
		}
	}
}

// addWebSocket has the relay tried over WebSocket at its TCP ports, where it may well listen for both, if it was named
// with no WebSocket address.
func (r *relay) addWebSocket() {
	if len(r.slots[kindWebSocket].addrs) > 0 {
		return
	}
	ws, err := ma.NewMultiaddr("/ws")
	if err != nil { // it is a multiaddr
		return
	}
	for _, a := range r.slots[kindTCP].addrs {
		at, _ := peer.SplitAddr(a)
		r.slots[kindWebSocket].addrs = append(r.slots[kindWebSocket].addrs, at.Encapsulate(ws))
		r.slots[kindWebSocket].guessed = true
	}
}

// hurry has all that waits done now.
func (r *relay) hurry(now time.Time) {
	for k := range r.slots {
		if s := &r.slots[k]; !s.dialing {
			s.next, s.fails = now, 0
		}
		r.slots[k].makeshifts = 0
	}
	r.ask, r.rtt = now, 0 // the line may be another one
}

func (c *core) tickRelay(r *relay, soon func(time.Time)) {
	if r.lost.IsZero() {
		r.lost = c.now
	}
	for k := range r.slots {
		c.tickSlot(r, kind(k), soon)
	}
	if c.public() || !c.joined(r) || r.asking {
		return
	}
	if r.ask.After(c.now) {
		soon(r.ask)
		return
	}
	r.asking, r.asked = true, c.now
	c.do(action{kind: actReserve, peer: r.id})
}

func (c *core) tickSlot(r *relay, k kind, soon func(time.Time)) {
	s := &r.slots[k]
	if len(s.addrs) == 0 || s.dialing || c.sound(r, k) && !s.fresh {
		return
	}
	at := s.next
	if listens := c.begun.Add(listenWithin); !c.listens(k) && k != kindWebSocket && at.Before(listens) {
		at = listens
	}
	if k == kindWebSocket {
		if c.near(r) {
			return
		}
		if len(r.slots[kindTCP].addrs)+len(r.slots[kindQUIC].addrs) > 0 && at.Before(r.lost.Add(webSocketAfter)) {
			at = r.lost.Add(webSocketAfter)
		}
	}
	if at.After(c.now) {
		soon(at)
		return
	}
	s.dialing = true
	c.do(action{kind: actDial, peer: r.id, via: k, addrs: s.addrs, timeout: r.patience(s)})
}

// patience is how long the next dial may take.
func (r *relay) patience(s *slot) time.Duration {
	every := 3
	if r.rtt > 0 && r.rtt < nearby {
		every = 9
	}
	if s.fails%every == every-1 {
		return dialSlowly
	}
	return dialWithin
}

// pause returns how long to wait before the next dial.
func (c *core) pause(r *relay, s *slot) time.Duration {
	most := pauseAway
	switch {
	case s.short:
		most = pauseRefused
	case c.joined(r):
		most = pauseMore
	}
	return c.jitter(min(most, pauseFirst<<min(s.fails, 12)))
}

// dialed is told that a dial to a relay ended; one that succeeded shows as a link.
func (c *core) dialed(p peer.ID, k kind, text string) {
	r := c.relayOf(p)
	if r == nil {
		return
	}
	s := &r.slots[k]
	s.dialing, s.fresh = false, false
	if c.changed = true; text == "" {
		return
	}
	s.fails++
	s.text = text
	s.next = c.now.Add(c.pause(r, s))
}

// reservation is what a relay has granted.
type reservation struct {
	expires  time.Time
	addrs    []ma.Multiaddr // the relay's, without /p2p-circuit
	data     uint64
	duration time.Duration
}

// reserved is told how a request for a reservation ended. refused tells that the relay itself said no.
func (c *core) reserved(p peer.ID, got reservation, text string, refused bool) {
	r := c.relayOf(p)
	if r == nil {
		return
	}
	r.asking = false
	c.changed = true
	if text == "" {
		left := got.expires.Sub(c.now)
		r.held, r.expires, r.refusals, r.reserveText = c.joined(r), got.expires, 0, ""
		r.circuits, r.data, r.duration = got.addrs, got.data, got.duration
		r.ask = c.now.Add(c.jitter(max(2*reserveGap, min(reserveEvery, left/3)))) // its clock may be off
		return
	}
	r.reserveText = text
	if refused {
		r.held = false
	}
	r.refusals++
	r.ask = c.now.Add(c.jitter(min(reserveSlow, reserveGap<<min(r.refusals-1, 10))))
}

// circuitsOf returns the addresses at which this host can be reached through the relay: those that it names, and those
// at which it was reached from here, as far as they reach at least as far as one of these.
func (r *relay) circuitsOf() []ma.Multiaddr {
	at, least := slices.Clone(r.circuits), addr.Unusable
	for _, a := range r.at {
		at, least = append(at, a), max(least, addr.ScopeOf(a))
	}
	at = ma.Unique(at)
	slices.SortFunc(at, func(a, b ma.Multiaddr) int {
		return cmp.Or(cmp.Compare(kindOf(a), kindOf(b)), a.Compare(b))
	})
	var out []ma.Multiaddr
	tail, err := ma.NewMultiaddr("/p2p/" + r.id.String() + "/p2p-circuit")
	if err != nil { // the ID was read from a configuration
		return nil
	}
	for _, a := range at {
		if len(out) == maxCircuits {
			break
		}
		if ipOf(a).IsValid() && addr.ScopeOf(a) < least {
			continue
		}
		if kindOf(a) != kindNone {
			out = append(out, a.Encapsulate(tail))
		}
	}
	return out
}

// listens tells whether the relay was named with the transport and port of a: then it was dialed there.
func (r *relay) listens(a ma.Multiaddr) bool {
	return slices.ContainsFunc(r.slots[kindOf(a)].addrs, func(b ma.Multiaddr) bool { return portOf(a) == portOf(b) })
}

// maxCircuits bounds the addresses that are announced for one relay.
const maxCircuits = 6
