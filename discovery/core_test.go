package discovery

import (
	"math/rand/v2"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/pace"
)

func (s *sim) star() {
	for i, id := range s.order {
		s.hungry(id)
		if i > 0 {
			s.join(id, s.order[0], 0)
		}
	}
}

func (s *sim) lan() {
	for _, id := range s.order {
		s.hungry(id)
		s.after(time.Duration(s.rng.Int64N(int64(100*time.Millisecond))), func() {
			s.input(id, func(c *core) {
				for _, p := range s.order {
					c.found(p, []ma.Multiaddr{s.nodes[p].addr}, Origin{Source: "mdns", Scope: Private})
				}
			})
		})
	}
}

func TestCore_FiftyNodesToldOfOne(t *testing.T) {
	for seed := range uint64(5) {
		s := newSim(t, seed, 50, KeeperConfig{})
		s.star()
		t.Logf("whole after %v", s.whole(8*time.Second, 5, DefaultHigh))
		s.run(10 * time.Second)
		for range 10 {
			s.kill(s.order[s.rng.IntN(50)])
		}
		t.Logf("whole again after %v", s.whole(5*time.Second, 5, DefaultHigh))
		s.run(30 * time.Second)
		before := s.dials
		s.run(time.Minute)
		if n := (s.dials - before) / 40; n > 90 {
			t.Errorf("%d dials a node in a minute of rest with ten dead", n)
		}
		s.whole(0, DefaultLow-1, DefaultHigh)
	}
}

func TestCore_PartitionHeals(t *testing.T) {
	for seed := range uint64(3) {
		s := newSim(t, seed, 40, KeeperConfig{})
		s.lan()
		s.whole(5*time.Second, 5, DefaultHigh)
		s.run(5 * time.Second)
		s.split(func(i int) int { return i % 2 })
		s.run(time.Minute)
		if s.healthy(1, DefaultHigh) == "" {
			t.Fatal("the network was not split")
		}
		s.heal()
		t.Logf("whole after %v", s.whole(5*time.Second, 5, DefaultHigh))
	}
}

func TestCore_NewcomerInAFullNetworkStays(t *testing.T) {
	s := newSim(t, 7, 60, KeeperConfig{Low: 5, High: 6})
	s.star()
	s.whole(20*time.Second, 3, 6)
	s.run(time.Minute)
	id := s.add("newcomer", KeeperConfig{Low: 5, High: 6})
	s.hungry(id)
	s.join(id, s.order[3], 0)
	s.run(20 * time.Second)
	if n := s.nodes[id].c.neighbors; n < 3 {
		t.Errorf("the newcomer has %d neighbors", n)
	}
}

func TestCore_RestartOfAllStaysWithinTheBudget(t *testing.T) {
	s := newSim(t, 3, pace.Of(200, 80), KeeperConfig{})
	s.lan()
	s.whole(10*time.Second, 5, DefaultHigh)
	s.run(10 * time.Second)
	// All are restarted at once and know all others from the start, as from their books.
	for _, id := range s.order {
		s.kill(id)
	}
	s.run(time.Second)
	for _, id := range s.order {
		n := s.nodes[id]
		n.dead, n.dials, n.wake = false, nil, time.Time{}
		n.c = newCore(id, KeeperConfig{}, n.c.rng)
	}
	s.lan()
	s.whole(10*time.Second, 5, DefaultHigh)
	s.run(20 * time.Second)
	for _, id := range s.order {
		dials := s.nodes[id].dials
		for i := range dials {
			j := i
			for j < len(dials) && dials[j].Sub(dials[i]) < time.Second {
				j++
			}
			if j-i > 31 { // a burst of 20, and 10 in the second after it
				t.Fatalf("%s dialed %d times in a second", id, j-i)
			}
		}
	}
}

func TestCore_CutOffNodeIsBackSoon(t *testing.T) {
	s := newSim(t, 1, 3, KeeperConfig{})
	s.lan()
	s.whole(3*time.Second, 2, DefaultHigh)
	s.split(func(i int) int { return i / 2 })
	s.run(time.Minute)
	s.heal()
	if d := s.whole(4*time.Second, 2, DefaultHigh); d > 4*time.Second {
		t.Errorf("back after %v", d)
	}
}

func testRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
