package grpcstream

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	askWait   = time.Second     // how long an instance may take to say that it is serving before it is taken for so
	nearEvery = 5 * time.Second // how often the nearest instances are sorted anew while calls ask for them

	// A peer with busyFrom calls in flight passes the next call on when it has twice as many as the one with the fewest;
	// one with fullAt in any case, unless all have.
	busyFrom = 16
	fullAt   = 100
	busyScan = 16 // peers that are compared then
)

// A hubService is a service and who offers it. It is guarded by the hub's lock.
type hubService struct {
	name      string
	instances []*instance
	all       pool             // of all instances
	tagged    map[string]*pool // of those with the tags
	called    bool             // calls ask for it: its instances are asked for their health
	due       time.Time        // when the pools change by themselves; zero: never
	unused    int              // sweeps without a call
}

// An instance is a peer as one that offers a service. It is guarded by the hub's lock.
type instance struct {
	peer    *hubPeer
	service *hubService
	health  fitness
	asked   time.Time // when it was asked first over the link that it has
	probe   *probe    // nil: it is not being asked
}

// fitness is what is known of an instance's health.
type fitness uint8

const (
	unasked    fitness = iota
	serving            // it says so
	notServing         // it says so
	unsaid             // it does not say: taken for serving
)

// fit tells whether the instance may be called at the time now, and if not because it was asked and has not answered
// yet, when it may be all the same.
func (i *instance) fit(now time.Time) (ok bool, later time.Time) {
	switch {
	case i.peer.link.Load() == nil, i.health == notServing:
		return false, later
	case i.health != unasked:
		return true, later
	case i.probe == nil:
		return false, later
	}
	later = i.asked.Add(askWait)
	return !later.After(now), later
}

// A pool is the instances among which calls with the same selector choose. It is guarded by the hub's lock, except for
// turn.
type pool struct {
	tags      []string
	instances []*instance
	ready     []*hubPeer // called in turn: fit, by the best path there is, not set aside
	spare     []*hubPeer // fit as well: called if those above were tried
	near      []*hubPeer // ready, the nearest first, as they were at nearAt
	nearAt    time.Time
	turn      atomic.Uint64 // calls so far
	swept     uint64        // turn at the last sweep
	unused    int           // sweeps without a call
}

// sweep tells whether a call chose from the pool since the last sweep.
func (p *pool) sweep() bool {
	if n := p.turn.Load(); n != p.swept {
		p.swept, p.unused = n, 0
		return true
	}
	p.unused++
	return false
}

// add takes an instance in if it has the tags.
func (p *pool) add(i *instance) {
	if containsAll(i.peer.tags, p.tags) {
		p.instances = append(p.instances, i)
	}
}

// pool returns the pool of the instances with some tags, a new one if need be.
func (s *hubService) pool(tags string, now time.Time) *pool {
	if tags == "" {
		return &s.all
	}
	p := s.tagged[tags]
	if p == nil {
		p = &pool{tags: strings.Split(tags, "\n")}
		for _, i := range s.instances {
			p.add(i)
		}
		if s.tagged == nil {
			s.tagged = map[string]*pool{}
		}
		s.tagged[tags] = p
		p.refresh(now)
	}
	return p
}

// regroup rebuilds the pools after instances or their tags have changed.
func (s *hubService) regroup(now time.Time) {
	s.all.instances = s.instances
	for _, p := range s.tagged {
		p.instances = nil
		for _, i := range s.instances {
			p.add(i)
		}
	}
	s.refresh(now)
}

// refresh brings the pools up to date after links, health or peers set aside have changed.
func (s *hubService) refresh(now time.Time) {
	s.due = s.all.refresh(now)
	for _, p := range s.tagged {
		p.refresh(now)
	}
}

// refresh sorts the instances into ready and spare, and returns when that changes by itself.
func (p *pool) refresh(now time.Time) (due time.Time) {
	p.ready, p.spare = p.ready[:0], p.spare[:0]
	p.near, p.nearAt = p.near[:0], time.Time{}
	var aside []*hubPeer
	for _, i := range p.instances {
		ok, later := i.fit(now)
		if !ok {
			due = sooner(due, later)
			continue
		}
		p.ready = append(p.ready, i.peer)
		if i.peer.aside.After(now) {
			due = sooner(due, i.peer.aside)
			aside = append(aside, i.peer)
		}
	}
	if most := len(p.ready) / 2; len(aside) > most { // those that were away the longest come back first
		slices.SortStableFunc(aside, func(a, b *hubPeer) int { return b.aside.Compare(a.aside) })
		aside = aside[:most]
	}
	p.putBack(func(q *hubPeer) bool { return slices.Contains(aside, q) })
	if slices.ContainsFunc(p.ready, func(q *hubPeer) bool { return !q.relayed() }) {
		p.putBack((*hubPeer).relayed)
	}
	slices.Reverse(p.spare) // what is over a relay comes before what failed lately
	clear(p.ready[len(p.ready):cap(p.ready)])
	clear(p.spare[len(p.spare):cap(p.spare)])
	return due
}

// putBack moves some of the ready peers to the spare ones.
func (p *pool) putBack(which func(*hubPeer) bool) {
	p.ready = slices.DeleteFunc(p.ready, func(q *hubPeer) bool {
		if !which(q) {
			return false
		}
		p.spare = append(p.spare, q)
		return true
	})
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// sortNear sorts the ready instances by their round trip; those of unknown distance come last.
func (p *pool) sortNear(now time.Time, rtt func(*hubPeer) time.Duration) {
	if !p.nearAt.IsZero() && now.Sub(p.nearAt) < nearEvery {
		return
	}
	type far struct {
		peer *hubPeer
		rtt  time.Duration
	}
	all := make([]far, len(p.ready))
	for i, q := range p.ready {
		all[i] = far{q, rtt(q)}
	}
	slices.SortStableFunc(all, func(a, b far) int { return cmp.Compare(uint64(a.rtt)-1, uint64(b.rtt)-1) }) // 0 is the farthest
	p.near = p.near[:0]
	for _, f := range all {
		p.near = append(p.near, f.peer)
	}
	p.nearAt = now
}

// choose returns the peer for the next attempt of a call, or nil. It passes over those already tried. slot is an instance
// that is not connected and should be dialed, for the next calls; without a peer there may be more of them.
func (p *pool) choose(c *call) (q *hubPeer, slot *instance) {
	if !c.begun {
		c.turn, c.begun = p.turn.Add(1)-1, true
	}
	if len(p.ready) == 0 && len(p.spare) == 0 {
		return nil, nil
	}
	if c.n == 0 {
		return p.first(c), p.unconnected(c)
	}
	n := uint64(len(p.ready))
	for i := range n {
		if q := p.ready[(c.turn+i)%n]; !c.hasTried(q) {
			return q, nil
		}
	}
	for _, q := range p.spare {
		if !c.hasTried(q) {
			return q, nil
		}
	}
	return nil, nil
}

// first returns the peer for the first attempt of a call: the one whose turn it is or the nearest, unless that one is
// busier than others.
func (p *pool) first(c *call) *hubPeer {
	if len(p.ready) == 0 {
		return p.spare[c.turn%uint64(len(p.spare))]
	}
	list, at, busy := p.ready, c.turn%uint64(len(p.ready)), int64(busyFrom)
	if c.sel.nearest && len(p.near) > 0 {
		list, at, busy = p.near, 0, fullAt
	}
	best := list[at]
	n := best.active.Load()
	if n < busy {
		return best
	}
	least, fewest := best, n
	for i := range min(uint64(len(list)), busyScan) {
		q := list[(at+i)%uint64(len(list))]
		m := q.active.Load()
		if c.sel.nearest && m < fullAt {
			return q
		}
		if m < fewest {
			least, fewest = q, m
		}
	}
	if n >= fullAt || n >= 2*fewest {
		return least
	}
	return best
}

// unconnected returns the instance in whose place a call is, if it has no link: so that all come in as calls come. One
// over a relay is left alone while there are others.
func (p *pool) unconnected(c *call) *instance {
	if len(p.ready)+len(p.spare) == len(p.instances) {
		return nil
	}
	i := p.instances[c.turn%uint64(len(p.instances))]
	if i.peer.link.Load() != nil || i.peer.farAway && len(p.ready) > 0 && !p.ready[0].relayed() {
		return nil
	}
	return i
}

// containsAll tells whether a list has all of some strings.
func containsAll(have, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(have, w) })
}
