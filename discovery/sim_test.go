package discovery

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// sim is a network of cores in a time of its own: it does what they want done, at once or after a while.
type sim struct {
	tb    testing.TB
	rng   *rand.Rand
	start time.Time
	now   time.Time
	queue simQueue
	seq   int
	nodes map[peer.ID]*simNode
	order []peer.ID
	side  map[peer.ID]int // who is in which part of a split network
	dials int
}

type simNode struct {
	c     *core
	addr  ma.Multiaddr
	dead  bool
	conns map[peer.ID]bool // to whom, and whether it dialed
	wake  time.Time
	asked map[peer.ID]time.Time
	dials []time.Time
}

type simEvent struct {
	at  time.Time
	seq int
	f   func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) } //nolint:forcetypeassert // only simEvents are pushed
func (q *simQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

const simLatency = 5 * time.Millisecond

func newSim(tb testing.TB, seed uint64, n int, cfg KeeperConfig) *sim {
	tb.Helper()
	tb.Logf("seed %d", seed)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := &sim{
		tb: tb, rng: rand.New(rand.NewPCG(seed, 1)), start: start, now: start,
		nodes: make(map[peer.ID]*simNode), side: make(map[peer.ID]int),
	}
	for i := range n {
		s.add(fmt.Sprintf("node-%03d", i), cfg)
	}
	return s
}

func (s *sim) add(name string, cfg KeeperConfig) peer.ID {
	id := peer.ID(name)
	i := len(s.order)
	s.nodes[id] = &simNode{
		c:     newCore(id, cfg, rand.New(rand.NewPCG(s.rng.Uint64(), 2))),
		addr:  addrOf(fmt.Sprintf("/ip4/10.0.%d.%d/tcp/9388", i/200, i%200+1)),
		conns: make(map[peer.ID]bool), asked: make(map[peer.ID]time.Time),
	}
	s.order = append(s.order, id)
	return id
}

func addrOf(s string) ma.Multiaddr {
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		panic(err)
	}
	return a
}

func (s *sim) after(d time.Duration, f func()) {
	s.seq++
	heap.Push(&s.queue, simEvent{at: s.now.Add(d), seq: s.seq, f: f})
}

// run lets d go by.
func (s *sim) run(d time.Duration) {
	end := s.now.Add(d)
	for len(s.queue) > 0 && !s.queue[0].at.After(end) {
		e := heap.Pop(&s.queue).(simEvent) //nolint:forcetypeassert // only simEvents are pushed
		s.now = e.at
		e.f()
	}
	s.now = end
}

// input tells a node's core something and does what it wants.
func (s *sim) input(id peer.ID, f func(*core)) {
	n := s.nodes[id]
	if n.dead {
		return
	}
	n.c.now = s.now
	f(n.c)
	s.look(id)
}

func (s *sim) look(id peer.ID) {
	n := s.nodes[id]
	if n.dead {
		return
	}
	n.c.now = s.now
	next := n.c.tick()
	out, events := n.c.out, n.c.events
	n.c.out, n.c.events = nil, nil
	for _, a := range out {
		s.perform(id, a)
	}
	for _, e := range events {
		if e.Kind == PeerConnected {
			s.ask(id, e.Peer.ID)
		}
	}
	if !next.IsZero() && (n.wake.IsZero() || !n.wake.After(s.now) || next.Before(n.wake)) {
		n.wake = next
		s.after(max(next.Sub(s.now), time.Millisecond), func() {
			if !n.wake.After(s.now) {
				s.look(id)
			}
		})
	}
}

func (s *sim) perform(id peer.ID, a action) {
	n := s.nodes[id]
	switch a.kind {
	case actDial:
		s.dials++
		n.dials = append(n.dials, s.now)
		there := s.nodes[a.peer]
		switch {
		case there == nil || s.side[id] != s.side[a.peer]:
			s.after(a.timeout, func() {
				s.input(id, func(c *core) { c.dialed(a.peer, fmt.Errorf("no answer within %v", a.timeout)) })
			})
		case there.dead:
			s.after(simLatency, func() { s.input(id, func(c *core) { c.dialed(a.peer, &refusedError{"refused"}) }) })
		default:
			s.after(simLatency, func() { s.connect(id, a.peer) })
		}
	case actNear, actProtect, actAddrs, actPing, actLog: // nothing to be seen here
	case actClose:
		s.after(0, func() { s.disconnect(id, a.peer, reasonOf(a.code)) })
	}
}

func (s *sim) connect(from, to peer.ID) {
	a, b := s.nodes[from], s.nodes[to]
	if a.dead || b.dead {
		s.input(from, func(c *core) { c.dialed(to, &refusedError{"refused"}) })
		return
	}
	if _, ok := a.conns[to]; !ok {
		a.conns[to], b.conns[from] = true, false
		s.input(from, func(c *core) { c.connUp(to, 1, true) })
		s.input(to, func(c *core) { c.connUp(from, 1, false) })
		s.after(simLatency, func() { s.identify(from, to) })
		s.after(simLatency, func() { s.identify(to, from) })
	}
	s.input(from, func(c *core) { c.dialed(to, nil) })
}

func (s *sim) identify(at, of peer.ID) {
	if _, ok := s.nodes[at].conns[of]; !ok {
		return
	}
	s.input(at, func(c *core) {
		c.identified(of, identity{member: true, addrs: []ma.Multiaddr{s.nodes[of].addr}, record: []byte(of), seq: uint64(s.start.UnixNano())})
	})
}

// disconnect ends the connection between two nodes; why is what the first tells the second.
func (s *sim) disconnect(a, b peer.ID, why closeReason) {
	if _, ok := s.nodes[a].conns[b]; !ok {
		return
	}
	delete(s.nodes[a].conns, b)
	delete(s.nodes[b].conns, a)
	s.input(a, func(c *core) { c.connDown(b, 0, closedUnknown) })
	s.input(b, func(c *core) { c.connDown(a, 0, why) })
}

// ask is the exchange.
func (s *sim) ask(id, p peer.ID) {
	n := s.nodes[id]
	if s.now.Sub(n.asked[p]) < askAgain {
		return
	}
	n.asked[p] = s.now
	s.after(2*simLatency, func() {
		there := s.nodes[p]
		if _, ok := n.conns[p]; !ok || there.dead {
			return
		}
		there.c.now = s.now
		records := there.c.records(s.now, MaxRecords, id, Private)
		s.input(id, func(c *core) {
			for _, r := range records {
				q := peer.ID(r)
				if e := c.peers[q]; e != nil && e.conns > 0 {
					continue
				}
				c.found(q, []ma.Multiaddr{s.nodes[q].addr}, Origin{Source: "exchange", Scope: Private, secondhand: true})
			}
		})
	})
}

// hungry has nodes below the low mark ask a neighbor each second.
func (s *sim) hungry(id peer.ID) {
	n := s.nodes[id]
	s.after(askHungry*3/4+time.Duration(s.rng.Int64N(int64(askHungry/2))), func() {
		if n.dead {
			return
		}
		if n.c.neighbors < n.c.cfg.Low && n.c.neighbors > 0 {
			k := s.rng.IntN(n.c.neighbors)
			for _, q := range s.order {
				if e := n.c.peers[q]; e != nil && e.neighbor {
					if k == 0 {
						s.ask(id, q)
						break
					}
					k--
				}
			}
		}
		s.hungry(id)
	})
}

// join is the join loop's effect: the node is told of a peer until it is connected or was let go.
func (s *sim) join(id, seed peer.ID, wait time.Duration) {
	s.after(wait, func() {
		n := s.nodes[id]
		e := n.c.peers[seed]
		if e == nil || e.conns == 0 && !e.busy && (e.full == 0 || s.now.After(e.next)) {
			s.input(id, func(c *core) {
				c.found(seed, []ma.Multiaddr{s.nodes[seed].addr}, Origin{Source: "join", Explicit: true})
			})
		}
		s.join(id, seed, min(2*max(wait, joinBase), joinSoon))
	})
}

func (s *sim) kill(id peer.ID) {
	n := s.nodes[id]
	n.dead = true
	for _, p := range s.order {
		if _, ok := n.conns[p]; ok {
			delete(n.conns, p)
			delete(s.nodes[p].conns, id)
			s.input(p, func(c *core) { c.connDown(id, 0, closedUnknown) })
		}
	}
}

// split cuts the network; the connections across it die after a while, as pings find out.
func (s *sim) split(part func(i int) int) {
	for i, id := range s.order {
		s.side[id] = part(i)
	}
	for _, id := range s.order {
		for _, p := range s.order {
			if _, ok := s.nodes[id].conns[p]; ok && s.side[id] != s.side[p] {
				s.after(pingTimeout+time.Duration(s.rng.Int64N(int64(pingEvery))), func() { s.disconnect(id, p, closedUnknown) })
			}
		}
	}
}

func (s *sim) heal() { clear(s.side) }

// healthy is what netw's is.
func (s *sim) healthy(low, high int) string {
	graph := make(map[peer.ID][]peer.ID)
	for _, id := range s.order {
		n := s.nodes[id]
		if n.dead {
			continue
		}
		if n.c.neighbors < low || n.c.neighbors > high {
			return fmt.Sprintf("%s has %d neighbors", id, n.c.neighbors)
		}
		count := 0
		for p, e := range n.c.peers {
			if !e.neighbor {
				continue
			}
			count++
			if o := s.nodes[p].c.peers[id]; o != nil && o.neighbor && !s.nodes[p].dead {
				graph[id] = append(graph[id], p)
			}
		}
		if count != n.c.neighbors {
			s.tb.Fatalf("%s counts %d neighbors and has %d", id, n.c.neighbors, count)
		}
		if graph[id] == nil {
			graph[id] = []peer.ID{}
		}
	}
	return connectedGraph(graph)
}

// whole runs until the network is healthy and returns how long that took.
func (s *sim) whole(limit time.Duration, low, high int) time.Duration {
	s.tb.Helper()
	begin := s.now
	for {
		problem := s.healthy(low, high)
		if problem == "" {
			return s.now.Sub(begin)
		}
		if s.now.Sub(begin) > limit {
			s.tb.Fatalf("after %v: %s", limit, problem)
		}
		s.run(50 * time.Millisecond)
	}
}

// connectedGraph says what is wrong; empty when whoever begins at one node comes to all.
func connectedGraph(graph map[peer.ID][]peer.ID) string {
	seen := make(map[peer.ID]bool)
	var visit func(peer.ID)
	visit = func(p peer.ID) {
		if _, ok := graph[p]; !ok || seen[p] {
			return
		}
		seen[p] = true
		for _, q := range graph[p] {
			visit(q)
		}
	}
	for p := range graph {
		visit(p)
		break
	}
	if len(seen) != len(graph) {
		return fmt.Sprintf("only %d of %d are connected", len(seen), len(graph))
	}
	return ""
}
