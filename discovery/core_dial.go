package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// How long the keeper waits between dials.
const (
	// candidateBase doubles up to candidateMax for peers that were never neighbors.
	candidateBase = 500 * time.Millisecond
	candidateMax  = 5 * time.Minute
	// candidateNear is the ceiling for one that was itself heard on the link within candidateHeard, and does not answer: as
	// soon as a person opens the firewall it is a neighbor.
	candidateNear  = 6 * time.Second
	candidateHeard = 10 * time.Minute
	// redialFirst, then redialBase doubling up to redialNear: a lost neighbor, for redialSoon after its loss. Whoever
	// comes back, as after a cut cable, is a neighbor again within seconds.
	redialFirst = 100 * time.Millisecond
	redialBase  = 250 * time.Millisecond
	redialHeard = time.Second
	redialNear  = 1500 * time.Millisecond
	redialSoon  = 3 * time.Minute
	// redialRelay is the ceiling for redialRelayFor after the loss where a relay is asked: it answers at once, and whoever is
	// restarted is there again within seconds.
	redialRelay    = 500 * time.Millisecond
	redialRelayFor = 15 * time.Second
	// redialRefused is the ceiling where the machine answers and the program does not: it ended, and when it is started
	// again it calls by itself.
	redialRefused = 5 * time.Second
	// redialFar is the ceiling afterwards, which is reached slowly.
	redialFar = time.Minute
	// ownWait is how long this node's own relays are left to whoever keeps them connected, which package host/reach does
	// over TCP and QUIC, and ownAgain after how long each dial in vain.
	ownWait  = time.Second
	ownAgain = 5 * time.Second
	// fullBase doubles up to fullMax for peers that let this node go.
	fullBase = 10 * time.Second
	fullMax  = 5 * time.Minute
	// refusedBase doubles up to refusedMax for peers that refuse this node, or are of another network.
	refusedBase = time.Minute
	refusedMax  = 10 * time.Minute
)

// capped returns base doubled n times, at most ceiling.
func capped(base time.Duration, n int, ceiling time.Duration) time.Duration {
	for range min(max(n, 0), 32) {
		if base *= 2; base >= ceiling {
			return ceiling
		}
	}
	return min(base, ceiling)
}

// backoff is how long to wait after e's fails-th failure in a row.
func (c *core) backoff(e *entry) time.Duration {
	if c.keeps(e.id) {
		return c.jitter(ownAgain)
	}
	if e.lost.IsZero() && !e.sticky {
		ceiling := candidateMax
		if e.direct && !e.refused && c.heard(e) {
			ceiling = candidateNear
		}
		return c.jitter(capped(candidateBase, e.fails-1, ceiling))
	}
	ceiling := redialNear
	if e.refused {
		ceiling = redialRefused
	}
	switch since := c.now.Sub(e.lost); {
	case e.lost.IsZero():
	case since > redialSoon:
		ceiling = min(ceiling+(since-redialSoon)/5, redialFar)
	case since < redialRelayFor && slices.ContainsFunc(e.addrs, func(a address) bool { return addr.Relayed(a.Multiaddr) }):
		ceiling = redialRelay
	}
	return c.jitter(capped(redialBase, e.fails-1, ceiling))
}

// heard tells whether e was heard of lately.
func (c *core) heard(e *entry) bool {
	return slices.ContainsFunc(e.addrs, func(a address) bool { return c.now.Sub(a.seen) < candidateHeard })
}

// dialTimeout is short where an answer takes no time, so that a peer that comes back is not missed while a dial to
// where it was hangs.
func dialTimeout(addrs []ma.Multiaddr, lost bool) time.Duration {
	widest := Loopback
	for _, a := range addrs {
		widest = max(widest, addr.ScopeOf(a))
		if addr.Relayed(a) {
			widest = Public
		}
	}
	switch {
	case widest == Public:
		return 6 * time.Second
	case lost && widest == Private:
		return 2 * time.Second
	case widest == Private:
		return 3 * time.Second
	default:
		return 10 * time.Second // nothing is silent here but a machine with too much to do
	}
}

// tick does what is due and returns when something will be; zero is never.
func (c *core) tick() time.Time {
	wake := c.settle()
	wake = earlier(wake, c.pings())
	return earlier(wake, c.dials())
}

func (c *core) pings() (wake time.Time) {
	for _, e := range c.peers {
		if e.conns == 0 {
			continue
		}
		wake = earlier(wake, c.watch(e))
		if !e.member {
			continue
		}
		if !c.now.Before(e.ping) {
			e.ping = c.now.Add(c.jitter(pingEvery))
			c.do(action{kind: actPing, peer: e.id, timeout: pingTimeout})
		}
		wake = earlier(wake, e.ping)
	}
	return wake
}

// dials starts the dials that are due. Whom the user named and the lost come first and whatever the number of
// neighbors; candidates only below the low mark.
func (c *core) dials() (wake time.Time) {
	urgent, candidates, pending := c.waiting()
	want := c.cfg.Low - c.neighbors - pending
	c.rng.Shuffle(len(urgent), func(i, j int) { urgent[i], urgent[j] = urgent[j], urgent[i] })
	for _, e := range urgent {
		wake = earlier(wake, c.start(e))
	}
	if want <= 0 {
		return wake
	}
	for _, e := range c.ranked(candidates) {
		at := c.start(e)
		wake = earlier(wake, at)
		if e.busy {
			if want--; want <= 0 {
				break
			}
		}
	}
	return wake
}

// waiting returns who may be dialed, and how many dials and connections may yet become neighbors.
func (c *core) waiting() (urgent, candidates []*entry, pending int) {
	for _, e := range c.peers {
		if e.busy || e.conns > 0 {
			if e.busy || !e.neighbor && e.outbound && !e.unwanted {
				pending++
			}
			continue
		}
		c.tire(e)
		switch {
		case c.homeless(e):
		case e.asked || e.sticky || !e.lost.IsZero():
			urgent = append(urgent, e)
		default:
			candidates = append(candidates, e)
		}
	}
	return urgent, candidates, pending
}

// tire ends what makes a dial urgent, when that has lasted too long or there are neighbors enough.
func (c *core) tire(e *entry) {
	if !e.lost.IsZero() && c.now.Sub(e.lost) > lostFor {
		e.lost = time.Time{}
	}
	if c.neighbors >= c.cfg.High && !e.sticky {
		e.asked = false
	}
}

// ranked orders candidates: fewest failures first, then those of which fewest neighbors share the network, by lot
// among equals.
func (c *core) ranked(candidates []*entry) []*entry {
	shared := make(map[string]int)
	for _, e := range c.peers {
		if e.neighbor {
			shared[e.group()]++
		}
	}
	rank := make(map[*entry]int, len(candidates))
	for _, e := range candidates {
		rank[e] = shared[e.group()]
	}
	// The map's order is no lot that a seed repeats.
	slices.SortFunc(candidates, func(a, b *entry) int { return cmp.Compare(a.id, b.id) })
	c.rng.Shuffle(len(candidates), func(i, j int) { candidates[i], candidates[j] = candidates[j], candidates[i] })
	slices.SortStableFunc(candidates, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.fails, b.fails), cmp.Compare(rank[a], rank[b]))
	})
	return candidates
}

// start dials e if that is due and within the bounds; otherwise it returns when to try again.
func (c *core) start(e *entry) time.Time {
	if c.now.Before(e.next) {
		return e.next
	}
	if _, ok := c.inflight[e.id]; ok {
		return time.Time{} // forgotten and found again meanwhile
	}
	if _, ok := c.banned[e.id]; ok || !c.allowed(e.id) {
		e.asked = false
		e.next = c.now.Add(c.jitter(10 * time.Second))
		return e.next
	}
	if len(c.inflight) >= c.width {
		return time.Time{} // the end of a dial wakes
	}
	if !c.budget.AllowN(c.now, 1) {
		return c.now.Add(time.Duration(float64(time.Second) / c.cfg.DialRate))
	}
	e.busy, e.asked, e.tried = true, false, c.now
	c.inflight[e.id] = struct{}{}
	c.touch(e)
	// Where nothing refuses, TCP may be what a firewall drops.
	all := e.fails%4 == 3 || e.fails > 0 && !e.refused
	addrs, timeout := c.aim(e)
	c.do(action{kind: actDial, peer: e.id, addrs: addrs, timeout: timeout, on: all})
	return time.Time{}
}

// claim takes that a peer is dialed by somebody else, who says by dialed how that ended if the dial is theirs: when one is
// under way already, the two become one. It returns at which addresses.
func (c *core) claim(p peer.ID) (addrs []ma.Multiaddr, ours bool) {
	e := c.peers[p]
	if e == nil {
		return nil, false
	}
	e.asked, e.lastErr = false, ""
	if _, under := c.inflight[p]; !under {
		c.inflight[p], ours = struct{}{}, true
		e.busy, e.tried = true, c.now
		c.touch(e)
	}
	return slices.Concat(c.places(e)), ours
}

// woken takes how late a timer was. On a machine that is too busy to be on time, many handshakes at once only make each
// of them time out, so fewer are begun.
func (c *core) woken(late time.Duration) {
	if late > lateFor {
		c.width = max(1, c.width/2)
	} else {
		c.width = min(maxDials, c.width+1)
	}
}

// dialed takes the end of a dial.
func (c *core) dialed(p peer.ID, err error) {
	delete(c.inflight, p)
	e := c.peers[p]
	if e == nil {
		return
	}
	e.busy = false
	if err == nil || e.conns > 0 {
		c.touch(e)
		return
	}
	if e.failed.IsZero() {
		e.failed = e.tried
	}
	e.fails++
	e.lastErr = err.Error()
	refused := (*refusedError)(nil)
	e.refused = errors.As(err, &refused)
	e.next = c.now.Add(c.backoff(e))
	c.touch(e)
	if w := (*wrongPeerError)(nil); errors.As(err, &w) {
		there := onePerPlace(w.addrs)
		c.dropAddrs(p, func(a ma.Multiaddr) bool { return len(there[placeOf(a)]) > 0 })
		return
	}
	if e.fails >= unreachableAfter && c.now.Sub(e.failed) >= unreachableFor && e.direct && !e.told && !e.wasMember &&
		c.notice.AllowN(c.now, 1) {
		e.told = true
		c.emit(PeerUnreachable, e, c.unreachable(e, err))
	}
}

// unreachable says what a person can do about a peer that does not answer.
func (c *core) unreachable(e *entry, err error) error {
	var places, ports []string
	for _, a := range e.multiaddrs() {
		hp, ok := addr.HostPort(a)
		if !ok || slices.Contains(places, hp) {
			continue
		}
		places = append(places, hp)
		if port := hp[strings.LastIndexByte(hp, ':')+1:]; !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	if len(places) == 0 {
		return fmt.Errorf("found %s, but it does not answer through its relay: check that it runs and is connected to that relay (%w)", e.id, err)
	}
	mine := ""
	if p := c.myPorts(); p != "" {
		mine = fmt.Sprintf("; for the other way allow inbound TCP and UDP port %s here", p)
	}
	return fmt.Errorf("found %s at %s but it does not answer: allow inbound TCP and UDP port %s in the firewall of that machine%s (%w)",
		e.id, strings.Join(places, ", "), strings.Join(ports, ", "), mine, err)
}

// hurry makes everything that waits to be dialed due: the network has changed.
func (c *core) hurry() {
	for _, e := range c.peers {
		if e.conns > 0 || e.full > 0 {
			continue
		}
		e.next = c.now
		if c.keeps(e.id) {
			e.next = c.now.Add(ownWait)
		}
		if e.fails > 2 {
			e.fails = 2
		}
	}
}
