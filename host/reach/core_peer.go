package reach

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/lynn9388/p2p/host/reach/internal/wire"
	"github.com/lynn9388/p2p/internal/addr"
)

// The figures of direct connections, each with its reason.
const (
	// politeness is how much later than the side that made the relayed connection, which knows of it first, the other
	// begins an exchange if none came.
	politeness = 700 * time.Millisecond
	// settled is how long a direct connection must last for the next loss to be a new story.
	settled = 10 * time.Second
	// suspicious is how much younger than the direct connection a relayed one must be for a doubt whether the other end
	// still has the direct one.
	suspicious = time.Second
	// busyAgain is when to look again, at least, after the other side said that it is trying by itself.
	busyAgain = 300 * time.Millisecond
	// inVain is how long an attempt's dials go on at least before the other side may begin another.
	inVain = 500 * time.Millisecond
	// known is how long attempts wait, after the first connection to a relay and after fresh ones are asked for, for these:
	// each tells of an address over its transport.
	known = 300 * time.Millisecond
	// addressWithin is how long a new relayed connection waits for an address to offer. Without one there is still the
	// peer's to dial.
	addressWithin = 3 * time.Second
	// allowAgain is when a peer that is not allowed is looked at again.
	allowAgain = 10 * time.Second
	// strange is how long a peer that does not speak the protocol is left alone.
	strange = 10 * time.Minute

	// A peer may begin exchanges as often as the schedule below does, twice over, and then one each few seconds. With
	// maxAddrs addresses an exchange makes this host send about 50 kB at most.
	exchangeBurst = 12
	exchangeEvery = 5 * time.Second
	// maxExchanges bounds the attempts at once, of both sides.
	maxExchanges = 16

	// maxPeers bounds the peers that are remembered, and remembered how long one is after its connections have ended.
	maxPeers   = 512
	remembered = 10 * time.Minute
)

// schedule is how long after the end of one attempt the next begins. The first few come fast, since what fails them is
// mostly a packet lost or an address that came a moment late; the later ones are for NATs that change.
func schedule(try int) time.Duration {
	steps := [...]time.Duration{
		0, 300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second,
		30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
	}
	if try < len(steps) {
		return steps[try]
	}
	return 10 * time.Minute
}

// carried is a relayed connection.
type carried struct {
	conn  string
	relay peer.ID
	realm addr.Scope // how far the relay's own address reaches
	out   bool       // this host made it
}

// outcome is how an attempt ended for the schedule.
type outcome int

const (
	outcomeFailed  outcome = iota
	outcomeDirect          // there is a direct connection
	outcomeBusy            // the other side is trying by itself
	outcomeStrange         // the other side does not speak the protocol
)

// target is a peer that is, or was lately, connected through a relay.
type target struct {
	peer     peer.ID
	met      time.Time
	relayed  []carried
	direct   int
	since    time.Time // direct, or not, since then
	attempts []Attempt // newest last
	try      int       // attempts in a row
	next     time.Time // zero: none is due
	running  bool      // an attempt, whoever began it
	id       int       // of the last attempt
	mine     bool      // this host began it
	dialing  time.Time // it is beyond the exchange since then
	again    bool      // this host is seen elsewhere since it began
	strange  bool
	asked    *rate.Limiter
	last     time.Time // when anything happened
}

func (c *core) carries(p peer.ID) bool {
	for _, t := range c.peers {
		if slices.ContainsFunc(t.relayed, func(r carried) bool { return r.relay == p }) {
			return true
		}
	}
	return false
}

// paths is told of all connections to a peer whenever one came or went.
func (c *core) paths(p peer.ID, relayed []carried, direct int) {
	t := c.target(p, len(relayed) > 0)
	if t == nil {
		return
	}
	isNew := slices.ContainsFunc(relayed, func(r carried) bool { return !slices.Contains(t.relayed, r) })
	was := t.direct > 0
	t.relayed, t.direct, t.last = relayed, direct, c.now
	c.changed = c.changed || isNew || was != (direct > 0)
	switch {
	case was != (direct > 0):
		if was && c.now.Sub(t.since) >= settled {
			t.try = 0
		}
		if t.since = c.now; was {
			c.renew(false) // a router that forgot this host is a common reason
		}
	case isNew && was && c.now.Sub(t.since) > suspicious:
		c.do(action{kind: actVerify, peer: p}) // why would the peer want another?
		c.renew(false)
	}
	if direct > 0 || len(relayed) == 0 {
		t.next = time.Time{}
	} else if isNew || was {
		c.due(t, c.start(t))
	}
	c.moved() // a peer that carries is believed
}

// target returns what is known of a peer; nil: nothing, and it is not to be made.
func (c *core) target(p peer.ID, create bool) *target {
	t := c.peers[p]
	if t != nil && create && len(t.relayed) == 0 {
		t.met = c.now
	}
	if t == nil && create {
		c.forget()
		t = &target{peer: p, met: c.now, asked: rate.NewLimiter(rate.Every(exchangeEvery), exchangeBurst)}
		c.peers[p] = t
	}
	return t
}

// forget makes room for one more peer.
func (c *core) forget() {
	var idle []*target
	for _, t := range c.peers {
		if len(t.relayed) > 0 || t.running {
			continue
		}
		if c.now.Sub(t.last) > remembered {
			delete(c.peers, t.peer)
			continue
		}
		idle = append(idle, t)
	}
	if len(c.peers) < maxPeers || len(idle) == 0 {
		return
	}
	delete(c.peers, slices.MinFunc(idle, func(a, b *target) int { return cmp.Or(a.last.Compare(b.last), cmp.Compare(a.peer, b.peer)) }).peer)
}

// start returns how long after the last attempt the next may begin, by who made the relayed connection.
func (c *core) start(t *target) time.Duration {
	wait := schedule(t.try)
	if !slices.ContainsFunc(t.relayed, func(r carried) bool { return r.out }) {
		wait += politeness
	}
	if t.strange {
		wait = max(wait, strange)
	}
	return wait
}

// due has an attempt made after a while, no later than one that is due already.
func (c *core) due(t *target, wait time.Duration) {
	if wait > schedule(2) {
		wait = c.jitter(wait)
	}
	if at := c.now.Add(wait); t.next.IsZero() || at.Before(t.next) {
		t.next = at
	}
}

// retryAll begins the attempts with all relayed peers anew: this host may be found elsewhere now.
func (c *core) retryAll() {
	for _, t := range c.peers {
		if t.direct == 0 && len(t.relayed) > 0 {
			t.try, t.strange, t.next = 0, false, time.Time{}
			t.again = t.running && (t.mine || !t.dialing.IsZero()) // an answer that is being made will have the new address
			c.due(t, c.start(t))
		}
	}
}

func (c *core) tickPeers(soon func(time.Time)) {
	busy := c.busy()
	for _, t := range c.peers {
		switch {
		case t.next.IsZero(), t.running && !t.again, !t.running && busy >= maxExchanges:
			continue
		case t.next.After(c.now):
			soon(t.next)
			continue
		case c.allow != nil && !c.allow(t.peer):
			t.next = c.now.Add(allowAgain)
			soon(t.next)
			continue
		}
		if wait := t.met.Add(addressWithin); wait.After(c.now) && !c.offers(t) {
			soon(wait) // or when moved begins it, as soon as there is an address
			continue
		}
		if wait, ready := c.ready(); !ready {
			soon(wait)
			continue
		}
		if !t.running {
			busy++
		}
		t.begin(c.now, true)
		c.do(action{kind: actAttempt, peer: t.peer, conn: t.best(), try: t.try, id: t.id})
	}
}

// ready tells whether the connections to relays that are being made have told where this host is seen, or until when they
// are waited for.
func (c *core) ready() (until time.Time, ready bool) {
	last := c.linkedAt
	if c.renewed.After(last) {
		last = c.renewed
	}
	until = last.Add(known)
	if last.IsZero() || !until.After(c.now) {
		return time.Time{}, true
	}
	for _, l := range c.links {
		if !l.identified && !l.retired {
			return until, false
		}
	}
	for _, r := range c.relays {
		for k := kindQUIC; k <= kindTCP; k++ {
			if s := &r.slots[k]; s.fails == 0 && (s.dialing || s.fresh) {
				return until, false
			}
		}
	}
	return time.Time{}, true
}

// young tells whether connections to relays are about to tell more of this host.
func (c *core) young() bool {
	return len(c.relays) > 0 && (c.linkedAt.IsZero() || c.now.Sub(c.linkedAt) < addressWithin)
}

// offers tells whether there is any address to offer to the peer.
func (c *core) offers(t *target) bool {
	for _, r := range t.relayed {
		if len(c.offerFor(r.realm).addrs) > 0 {
			return true
		}
	}
	return false
}

// best returns the relayed connection to exchange addresses on: the newest.
func (t *target) best() string {
	if len(t.relayed) == 0 {
		return ""
	}
	return t.relayed[len(t.relayed)-1].conn
}

func (t *target) begin(now time.Time, mine bool) {
	t.id++
	t.running, t.mine, t.dialing, t.again, t.last, t.next = true, mine, time.Time{}, false, now, time.Time{}
}

// asks tells whether an exchange that a peer begins is served, with the ID of the attempt that it begins. One that is under
// way may be given up for it: when both begin at once, that of the smaller ID goes on; a peer that begins anew has given up
// what it began before; and dials that are in vain for a while are worth less than what the peer may have to say.
func (c *core) asks(p peer.ID) (refusal wire.Refusal, id int) {
	t := c.peers[p]
	switch {
	case t == nil || !t.asked.AllowN(c.now, 1):
		return wire.Refusal_REFUSAL_TOO_OFTEN, 0
	case !t.running && c.busy() >= maxExchanges,
		t.running && t.mine && t.dialing.IsZero() && c.self < p,
		t.running && t.mine && !t.dialing.IsZero() && c.now.Sub(t.dialing) < inVain:
		return wire.Refusal_REFUSAL_BUSY, 0
	}
	t.strange = false
	t.begin(c.now, false)
	return wire.Refusal_REFUSAL_UNSPECIFIED, t.id
}

// busy returns how many attempts are under way.
func (c *core) busy() int {
	n := 0
	for _, t := range c.peers {
		if t.running {
			n++
		}
	}
	return n
}

// dialing tells whether an attempt goes on after its exchange.
func (c *core) dialing(p peer.ID, id int) bool {
	t := c.peers[p]
	if t == nil || t.id != id {
		return false
	}
	t.dialing = c.now
	return true
}

// append returns the attempts with one more, without the oldest.
func (t *target) append(a Attempt) []Attempt {
	all := append(t.attempts, a)
	return all[max(0, len(all)-MaxAttempts):]
}

// failures returns how many of the last attempts failed in a row.
func (t *target) failures() int {
	n := 0
	for i := len(t.attempts) - 1; i >= 0 && t.attempts[i].Err != ""; i-- {
		n++
	}
	return n
}

// attempted is told how an attempt ended.
func (c *core) attempted(p peer.ID, id int, a Attempt, how outcome) {
	t := c.peers[p]
	if t == nil || t.id != id {
		return // given up for another
	}
	t.running, t.last = false, c.now
	c.changed = true
	if how != outcomeBusy {
		t.attempts = t.append(a)
	}
	over := how == outcomeDirect || t.direct > 0 || len(t.relayed) == 0
	switch {
	case over:
	case t.again: // with another address, at once
		c.due(t, 0)
	case how == outcomeBusy:
		c.due(t, max(busyAgain, min(2*a.Took, schedule(3))))
	default:
		t.try++
		t.strange = how == outcomeStrange
		t.next = time.Time{}
		c.due(t, c.following(t, a))
	}
	if how == outcomeFailed {
		c.renew(false) // this host may be seen elsewhere by now
	}
}

// following returns how long after an attempt that failed the next begins.
func (c *core) following(t *target, a Attempt) time.Duration {
	wait := c.start(t)
	switch {
	case !t.mine:
		return wait*3/2 + politeness // the other side goes on
	case a.Role == "":
		return max(wait, min(2*a.Took, schedule(3))) // the other side may have begun as well
	default:
		return wait
	}
}
