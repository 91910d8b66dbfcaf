package grpcstream

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"
)

// TestHub_Model does random things to a hub (peers that join, leave and die, whose health, tags and paths change, whose
// calls fail, partitions) and checks what must always hold, the invariants named below.
func TestHub_Model(t *testing.T) { rapid.Check(t, modelHub) }

// A hubModel is what the test itself knows of the world around a hub.
type hubModel struct {
	h        *hub
	w        *fakeWire
	clock    time.Time
	offered  map[peer.ID]offer
	asked    map[*probe]time.Time // when it was asked
	inFlight map[*hubPeer]int64
	given    []*link
	calls    []*call
	cut      map[peer.ID]bool // on the other side of a partition
}

var (
	modelServices = []string{"x.A", "x.B", "x.C"}
	modelTags     = []string{"env=a", "env=b"}
)

func modelHub(t *rapid.T) {
	m := &hubModel{
		clock: time.Now(), offered: map[peer.ID]offer{}, asked: map[*probe]time.Time{},
		inFlight: map[*hubPeer]int64{}, cut: map[peer.ID]bool{},
	}
	m.h, m.w = newFakeHub()
	defer m.h.close()
	m.h.now = func() time.Time { return m.clock }
	m.h.timer = time.NewTimer(time.Hour) // which rings for nobody: the test does, by its own clock
	m.w.quiet, m.w.path = true, map[peer.ID]PathKind{}
	m.w.asked = func(q *probe) { m.asked[q] = m.clock }
	t.Repeat(map[string]func(*rapid.T){
		"offer":     m.offer,
		"call":      m.call,
		"again":     m.again,
		"up":        m.up,
		"fail":      m.fail,
		"lose":      m.lose,
		"done":      m.done,
		"say":       m.say,
		"settle":    m.settle,
		"strike":    m.strike,
		"partition": m.partition,
		"heal":      m.heal,
		"back":      func(t *rapid.T) { m.h.cameBack(anyPeer().Draw(t, "id")) },
		"sweep":     func(*rapid.T) { m.h.sweep() },
		"sleep": func(t *rapid.T) {
			m.sleep(time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond)
		},
		"": m.check,
	})
	m.recovers(t)
}

func anyPeer() *rapid.Generator[peer.ID] {
	return rapid.Custom(func(t *rapid.T) peer.ID { return peer.ID(fmt.Sprint(rapid.IntRange(0, 5).Draw(t, "peer"))) })
}

// sleep lets time pass, and the hub's timer ring.
func (m *hubModel) sleep(d time.Duration) {
	m.clock = m.clock.Add(d)
	m.h.alarm()
}

func (m *hubModel) offer(t *rapid.T) {
	id := anyPeer().Draw(t, "id")
	if m.cut[id] {
		t.Skip("nothing is heard of it")
	}
	o := offer{
		services: rapid.SliceOfNDistinct(rapid.SampledFrom(modelServices), 0, 3, rapid.ID[string]).Draw(t, "services"),
		tags:     rapid.SliceOfNDistinct(rapid.SampledFrom(modelTags), 0, 2, rapid.ID[string]).Draw(t, "tags"),
		relayed:  rapid.Bool().Draw(t, "relayed"),
	}
	slices.Sort(o.services)
	o.node = len(o.services) > 0
	if m.w.path[id] = PathDirect; o.relayed {
		m.w.path[id] = PathRelay
	}
	m.offered[id] = o
	m.h.offers(id, o)
}

func (m *hubModel) call(t *rapid.T) {
	sel := selector{}
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		sel.peer = anyPeer().Draw(t, "to")
	case 1:
		sel.tags = rapid.SampledFrom(modelTags).Draw(t, "tag")
	case 2:
		sel.nearest = true
	}
	c := newCall(sel)
	m.calls = append(m.calls, c)
	m.attempt(t, c, "/"+rapid.SampledFrom(modelServices).Draw(t, "service")+"/M")
}

func (m *hubModel) again(t *rapid.T) {
	if len(m.calls) == 0 {
		t.Skip("no call")
	}
	m.attempt(t, rapid.SampledFrom(m.calls).Draw(t, "call"), who1)
}

// attempt asks for a peer, and checks the one that is given.
func (m *hubModel) attempt(t *rapid.T, c *call, method string) {
	service, first := c.service(method), c.n == 0
	l, v := m.h.pick(c, method)
	if v != picked {
		return
	}
	m.inFlight[l.peer]++
	m.given = append(m.given, l)
	// Ready: a call is given a link that is up.
	if !m.w.ups[l] {
		t.Fatalf("picked a link to %s that is not ready", l.peer.id)
	}
	if c.sel.peer != "" {
		// Named: a call to a peer goes to that peer.
		if l.peer.id != c.sel.peer {
			t.Fatalf("named %s, picked %s", c.sel.peer, l.peer.id)
		}
		return
	}
	// Offered: a call goes to a peer that offers the service and has the tags.
	o := m.offered[l.peer.id]
	if !slices.Contains(o.services, service) || c.sel.tags != "" && !slices.Contains(o.tags, c.sel.tags) {
		t.Fatalf("%s offers %v, not %s with %q", l.peer.id, o, service, c.sel.tags)
	}
	// Healthy: it goes to none that is not serving, and to none that was asked less than a second ago and has not said.
	if is, ok := m.fit(l.peer, service); !ok {
		t.Fatalf("%s is %v and got a call", l.peer.id, is)
	}
	for _, p := range m.h.services[service].all.instances {
		q := p.peer
		if !c.sel.hasTag(m.offered[q.id].tags) {
			continue
		}
		_, fit := m.fit(q, service)
		// Direct first: a first attempt goes over a relay only if no direct instance can take it.
		if first && fit && !q.aside.After(m.clock) && !q.relayed() && l.peer.relayed() {
			t.Fatalf("%s got a call over a relay although %s is direct", l.peer.id, q.id)
		}
		// Untried first: a further attempt goes to a peer that the call has tried only if it has tried all.
		if fit && !first && c.n <= triedMax && slices.Contains(c.tried[:c.n-1], l.peer) && !slices.Contains(c.tried[:c.n], q) {
			t.Fatalf("%s was tried again although %s was not", l.peer.id, q.id)
		}
	}
}

// fit tells whether the peer may get calls of a service, as far as the model knows.
func (m *hubModel) fit(p *hubPeer, service string) (fitness, bool) {
	for _, i := range p.offered {
		if i.service.name != service || i.probe == nil || p.link.Load() == nil {
			continue
		}
		if !m.clock.Before(m.asked[i.probe].Add(askWait)) && i.health == unasked {
			return unasked, true
		}
		return i.health, i.health == serving || i.health == unsaid
	}
	return unasked, false
}

func (s *selector) hasTag(tags []string) bool { return s.tags == "" || slices.Contains(tags, s.tags) }

func (m *hubModel) up(t *rapid.T) {
	if len(m.w.dialing) == 0 {
		t.Skip("nothing dialed")
	}
	i := rapid.IntRange(0, len(m.w.dialing)-1).Draw(t, "which")
	if m.cut[m.w.dialing[i].peer.id] {
		t.Skip("out of reach")
	}
	m.w.up(i)
}

func (m *hubModel) fail(t *rapid.T) {
	if len(m.w.dialing) == 0 {
		t.Skip("nothing dialed")
	}
	err := rapid.SampledFrom([]error{errors.New("refused"), errUnknownPeer}).Draw(t, "err")
	m.w.down(rapid.IntRange(0, len(m.w.dialing)-1).Draw(t, "which"), err)
}

func (m *hubModel) lose(t *rapid.T) {
	ups := m.links(func(*link) bool { return true })
	if len(ups) == 0 {
		t.Skip("no link")
	}
	m.h.down(rapid.SampledFrom(ups).Draw(t, "link"), nil)
}

// links returns links that are up, in a certain order.
func (m *hubModel) links(which func(*link) bool) (all []*link) {
	for l := range m.w.ups {
		if which(l) {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b *link) int { return cmp.Compare(a.peer.id, b.peer.id) })
	return all
}

func (m *hubModel) done(t *rapid.T) {
	if len(m.given) == 0 {
		t.Skip("nothing in flight")
	}
	l := m.given[0]
	m.given = m.given[1:]
	o := rapid.SampledFrom([]outcome{answered, missed, missed, neither}).Draw(t, "outcome")
	l.done(o == answered)
	m.h.judge(l.peer, o)
	m.inFlight[l.peer]--
}

// say has an instance say something of its health, in time or late.
func (m *hubModel) say(t *rapid.T) {
	m.w.probes = slices.DeleteFunc(m.w.probes, func(q *probe) bool { return q.ctx.Err() != nil && rapid.IntRange(0, 3).Draw(t, "forget") > 0 })
	if len(m.w.probes) == 0 {
		t.Skip("nobody is asked")
	}
	q := rapid.SampledFrom(m.w.probes).Draw(t, "probe")
	is := rapid.SampledFrom([]fitness{serving, serving, notServing, unsaid}).Draw(t, "health")
	m.h.told(q, is, time.Duration(rapid.IntRange(0, 5).Draw(t, "rtt"))*time.Millisecond)
}

// settle completes what is under way: all dials and all questions.
func (m *hubModel) settle(t *rapid.T) {
	for i, l := range slices.Backward(slices.Clone(m.w.dialing)) {
		if !m.cut[l.peer.id] {
			m.w.up(i)
		}
	}
	for _, q := range m.w.probes {
		m.h.told(q, serving, time.Millisecond)
	}
	m.check(t)
}

// strike has calls to a peer fail, one after the other.
func (m *hubModel) strike(t *rapid.T) {
	p := m.h.peers[anyPeer().Draw(t, "id")]
	if p == nil {
		t.Skip("not known")
	}
	for range asideAfter {
		m.h.judge(p, missed)
	}
}

// partition cuts some peers off: their links break, and nothing more is heard of them.
func (m *hubModel) partition(t *rapid.T) {
	id := anyPeer().Draw(t, "id")
	m.cut[id] = true
	for _, l := range m.links(func(l *link) bool { return l.peer.id == id }) {
		m.h.down(l, nil)
	}
	for i, l := range slices.Backward(slices.Clone(m.w.dialing)) {
		if l.peer.id == id {
			m.w.down(i, errors.New("cut off"))
		}
	}
	m.offered[id] = offer{}
	m.h.offers(id, offer{})
}

func (m *hubModel) heal(*rapid.T) {
	for id := range m.cut {
		m.h.cameBack(id)
	}
	clear(m.cut)
}

// check is what holds at any time.
func (m *hubModel) check(t *rapid.T) {
	// One tunnel: a peer is dialed once at a time, and has one link however many services it offers.
	links := map[*hubPeer]int{}
	for _, l := range m.w.dialing {
		if links[l.peer]++; links[l.peer] > 1 {
			t.Fatalf("%s is dialed twice at once", l.peer.id)
		}
	}
	up := map[*hubPeer]int{}
	for l := range m.w.ups {
		// But for a moment, when calls over a relay are about to move to a direct path that there is.
		if p := l.peer; p.next == l {
			if !p.relayed() || l.path == PathRelay || m.clock.Sub(l.since) >= moveSettleMax {
				t.Fatalf("%s: the calls have not moved", p.id)
			}
			continue
		}
		if up[l.peer]++; up[l.peer] > 1 {
			t.Fatalf("two links to %s", l.peer.id)
		}
	}
	// Counted: what is in flight is counted exactly.
	for p, n := range m.inFlight {
		if p.active.Load() != n {
			t.Fatalf("%s: %d in flight, counted %d", p.id, n, p.active.Load())
		}
	}
	// Asked once: one question is open for each instance, and none for what is no instance any longer.
	open := map[string]int{}
	for _, q := range m.w.probes {
		if q.ctx.Err() != nil {
			continue
		}
		key := string(q.link.peer.id) + " " + q.service
		if open[key]++; open[key] > 1 || !m.w.ups[q.link] || !slices.Contains(m.offered[q.link.peer.id].services, q.service) {
			t.Fatalf("%s is asked %d times for its health", key, open[key])
		}
	}
	for _, s := range m.h.services {
		if len(s.instances) == 0 {
			t.Fatalf("%s is kept without an instance", s.name)
		}
		m.checkPool(t, s, &s.all)
		for _, p := range s.tagged {
			m.checkPool(t, s, p)
		}
	}
}

// checkPool checks what calls are given without more ado.
func (m *hubModel) checkPool(t *rapid.T, s *hubService, p *pool) {
	fit, aside, relayed := 0, 0, 0
	for _, i := range p.instances {
		_, ok := m.fit(i.peer, s.name)
		// Whole: every instance that is fit is ready or spare, and no other.
		in := slices.Contains(p.ready, i.peer) || slices.Contains(p.spare, i.peer)
		if ok != in {
			t.Fatalf("%s of %s: fit %v, may be called %v", i.peer.id, s.name, ok, in)
		}
		if !ok {
			continue
		}
		fit++
		if i.peer.relayed() {
			relayed++
		} else if slices.Contains(p.spare, i.peer) {
			aside++
		}
		// Only for failures: a direct instance that is not set aside has its turn.
		if !i.peer.aside.After(m.clock) && !i.peer.relayed() && !slices.Contains(p.ready, i.peer) {
			t.Fatalf("%s of %s has no turn", i.peer.id, s.name)
		}
	}
	// A share: at most half of those fit are set aside, and somebody is ready if anybody is fit.
	if aside > fit/2 || fit > 0 && len(p.ready) == 0 {
		t.Fatalf("%s: of %d fit %d are set aside (%d over relays), %d ready", s.name, fit, aside, relayed, len(p.ready))
	}
}

// recovers checks that, when all partitions have healed and everybody is serving, calls reach every service that somebody
// offers, within the pauses after failures.
func (m *hubModel) recovers(t *rapid.T) {
	m.heal(t)
	m.h.offers("0", offer{node: true, services: modelServices, tags: modelTags})
	m.offered["0"] = offer{node: true, services: modelServices, tags: modelTags}
	for _, tag := range append([]string{""}, modelTags...) {
		for _, service := range modelServices {
			c := newCall(selector{tags: tag})
			reached := false
			for range 12 {
				l, v := m.h.pick(c, "/"+service+"/M")
				if v == picked {
					l.done(true)
					reached = true
					break
				}
				m.w.upAll()
				for _, q := range m.w.probes {
					m.h.told(q, serving, 0)
				}
				m.sleep(backoffMax / 4)
			}
			if !reached {
				t.Fatalf("no call reaches %s with %q", service, tag)
			}
		}
	}
}
