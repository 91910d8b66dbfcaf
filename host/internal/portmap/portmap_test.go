package portmap

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lynn9388/p2p/internal/virtual"
)

// home is a network with a router, as the mapper's functions see it.
type home struct {
	mu       sync.Mutex
	at       place
	ports    []Port
	public   netip.Addr
	taken    []uint16 // outside ports that are another's
	never    Port     // is not mapped
	hangs    Port     // is asked for in vain
	searches []time.Time
	gone     bool
	slow     time.Duration // to say its address
	stuck    bool          // while it is to take a mapping back
	mapped   map[Port]uint16
	renewals int
}

var _ router = (*home)(nil)

func (h *home) String() string { return "a test" }

func (h *home) external(ctx context.Context) (netip.Addr, error) {
	h.mu.Lock()
	slow := h.slow
	h.mu.Unlock()
	select {
	case <-ctx.Done():
		return netip.Addr{}, ctx.Err()
	case <-time.After(slow):
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return netip.Addr{}, errNoAnswer
	}
	h.renewals++
	return h.public, nil
}

func (h *home) add(ctx context.Context, p Port, want uint16, _ time.Duration) (uint16, error) {
	h.mu.Lock()
	hangs := p == h.hangs
	h.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return 0, errNoAnswer
	}
	if p == h.never {
		return 0, errors.New("not this one")
	}
	if slices.Contains(h.taken, want) {
		return 0, errPortTaken
	}
	h.mapped[p] = want
	return want, nil
}

func (h *home) remove(ctx context.Context, p Port, outside uint16) error {
	h.mu.Lock()
	stuck := h.stuck
	h.mu.Unlock()
	if stuck { // until the one that asks has gone
		<-ctx.Done()
		return ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mapped[p] != outside {
		return errors.New("not mapped")
	}
	delete(h.mapped, p)
	return nil
}

// change changes the network.
func (h *home) change(f func(*home)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
}

var (
	tcp, udp = Port{"tcp", 9388}, Port{"udp", 9388}
	public   = netip.MustParseAddr("5.0.0.1")
	living   = place{netip.MustParseAddr("192.168.1.7"), netip.MustParseAddr("192.168.1.1")}
)

// inHome runs f with a mapper that runs at home until f returns, in virtual time.
func inHome(t *testing.T, f func(t *testing.T, h *home, m *Mapper)) {
	t.Helper()
	virtual.Test(t, func(t *testing.T) {
		h := &home{at: living, ports: []Port{tcp, udp}, public: public, mapped: map[Port]uint16{}}
		m := New(func() []Port {
			h.mu.Lock()
			defer h.mu.Unlock()
			return slices.Clone(h.ports)
		}, slog.New(slog.DiscardHandler))
		m.where = func() (place, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.at, nil
		}
		m.find = func(context.Context, place) (router, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.searches = append(h.searches, time.Now())
			if h.gone {
				return nil, errNoAnswer
			}
			return h, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = m.Run(ctx) })
		defer func() { // also of a test that gave up: a bubble panics about what is left in it, which hides why
			cancel()
			running.Wait()
			if len(h.mapped) > 0 && !h.gone {
				t.Errorf("%v is left mapped", h.mapped)
			}
			if m.Found() {
				t.Error("a mapper that has ended says that it maps")
			}
		}()
		synctest.Wait()
		f(t, h, m)
	})
}

// after lets time pass.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func outside(m *Mapper, p Port) string {
	if at, ok := m.Outside(p); ok {
		return at.String()
	}
	return ""
}

func TestMapper_MapsAndRenews(t *testing.T) {
	inHome(t, func(t *testing.T, h *home, m *Mapper) {
		if got := outside(m, tcp) + " " + outside(m, udp); got != "5.0.0.1:9388 5.0.0.1:9388" {
			t.Errorf("at once %q", got)
		}
		after(10 * time.Minute)
		if h.renewals < 10 || h.renewals > 12 || len(h.searches) != 1 {
			t.Errorf("%d renewals and %d searches in ten minutes", h.renewals, len(h.searches))
		}
		h.change(func(h *home) { h.public = netip.MustParseAddr("5.0.0.9") })
		after(renewEvery + lookEvery)
		if got := outside(m, tcp); got != "5.0.0.9:9388" {
			t.Errorf("with another outside address %q", got)
		}
	})
}

func TestMapper_FollowsThePorts(t *testing.T) {
	inHome(t, func(t *testing.T, h *home, m *Mapper) {
		other := Port{"tcp", 443}
		h.change(func(h *home) { h.ports = []Port{other} })
		m.Look()
		after(time.Second)
		if got := outside(m, other); got != "5.0.0.1:443" || outside(m, tcp) != "" || len(h.mapped) != 1 {
			t.Errorf("the new port is at %q, mapped is %v", got, h.mapped)
		}
	})
}

func TestMapper_TakesAnotherPortWhereItsOwnIsTaken(t *testing.T) {
	inHome(t, func(t *testing.T, h *home, m *Mapper) {
		h.change(func(h *home) {
			h.taken, h.ports, h.mapped = []uint16{9388}, []Port{udp}, map[Port]uint16{}
			h.at.inside = netip.MustParseAddr("192.168.1.8")
		})
		after(lookEvery)
		at, ok := m.Outside(udp)
		if !ok || at.Port() == 9388 || at.Port() < firstRandomPort {
			t.Fatalf("mapped at %v, %v", at, ok)
		}
		after(5 * renewEvery)
		if again, _ := m.Outside(udp); again != at {
			t.Errorf("at %v after renewals, at %v before", again, at)
		}
	})
}

// Some routers map one transport and not the other.
func TestMapper_APortThatIsNotMappedIsAskedForWithTheOthers(t *testing.T) {
	inHome(t, func(t *testing.T, h *home, m *Mapper) {
		h.change(func(h *home) { h.never, h.renewals = udp, 0; delete(h.mapped, udp) })
		after(10 * time.Minute)
		if h.renewals < 9 || h.renewals > 12 {
			t.Errorf("asked %d times in ten minutes", h.renewals)
		}
		if outside(m, tcp) == "" || outside(m, udp) != "" {
			t.Errorf("mapped at %q and %q", outside(m, tcp), outside(m, udp))
		}
	})
}

func TestMapper_LooksAgainForARouterThatIsGone(t *testing.T) {
	inHome(t, func(t *testing.T, h *home, m *Mapper) {
		h.change(func(h *home) { h.gone = true })
		after(renewEvery + lookEvery)
		if m.Found() || outside(m, tcp) != "" {
			t.Error("mapped by a router that is gone")
		}
		after(30 * time.Minute)
		if n := len(h.searches); n < 6 || n > 14 {
			t.Errorf("%d searches in half an hour", n)
		}
		h.change(func(h *home) { h.gone, h.mapped = false, map[Port]uint16{} })
		after(lastPause + lookEvery)
		if outside(m, tcp) == "" {
			t.Error("not mapped by the router that is back")
		}
	})
}

func TestMapper_AnotherNetwork(t *testing.T) {
	inHome(t, func(t *testing.T, h *home, m *Mapper) {
		h.change(func(h *home) { h.at, h.mapped = place{}, map[Port]uint16{} })
		after(lookEvery)
		if m.Found() {
			t.Error("mapped without a network")
		}
		searched := len(h.searches)
		after(time.Hour)
		if len(h.searches) != searched {
			t.Error("searched without a network")
		}
		h.change(func(h *home) { h.at = place{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("10.0.0.1")} })
		after(lookEvery)
		if outside(m, tcp) == "" {
			t.Error("not mapped in another network")
		}
	})
}

func TestMapper_ARouterBehindARouterIsOfNoUse(t *testing.T) {
	inHome(t, func(t *testing.T, h *home, m *Mapper) {
		h.change(func(h *home) { h.public = netip.MustParseAddr("100.64.0.7") })
		after(renewEvery + lookEvery)
		if got := outside(m, tcp); got != "" {
			t.Errorf("mapped at %s", got)
		}
		h.change(func(h *home) { h.mapped = nil })
	})
}

func TestMapper_NothingToMap(t *testing.T) {
	inHome(t, func(t *testing.T, h *home, m *Mapper) {
		h.change(func(h *home) { h.ports = nil })
		after(lookEvery)
		if len(h.mapped) > 0 || outside(m, tcp) != "" {
			t.Errorf("mapped: %v", h.mapped)
		}
	})
}

func TestMapper_EndsWhileItRenews(t *testing.T) {
	inHome(t, func(_ *testing.T, h *home, _ *Mapper) {
		h.change(func(h *home) { h.hangs = udp })
		after(renewEvery + lookEvery)
	})
}

// What others know is the outside port, and a router may keep a mapping that nobody takes back.
func TestMapper_KeepsItsOutsidePort(t *testing.T) {
	for name, trouble := range map[string]func(h *home, on bool){
		"the router is silent for once": func(h *home, on bool) { h.gone = on },
		"the router renews one port of two": func(h *home, on bool) {
			if h.never = (Port{}); on {
				h.never = tcp
			}
		},
		"there is no network for a moment": func(h *home, on bool) {
			if h.at = living; on {
				h.at = place{}
			}
		},
	} {
		for name2, then := range map[string]time.Duration{"at the end": 0, "and it is over": 3 * renewEvery} {
			t.Run(name+" "+name2, func(t *testing.T) {
				inHome(t, func(t *testing.T, h *home, m *Mapper) {
					h.change(func(h *home) { h.taken, h.mapped, h.at = []uint16{9388}, map[Port]uint16{}, place{} })
					after(lookEvery)
					h.change(func(h *home) { h.at = place{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("10.0.0.1")} })
					after(lookEvery)
					h.change(func(h *home) { h.at, h.mapped = living, map[Port]uint16{} })
					after(lookEvery)
					had, _ := m.Outside(tcp)
					h.change(func(h *home) { trouble(h, true) })
					after(renewEvery + lookEvery)
					if at, ok := m.Outside(tcp); ok {
						t.Errorf("in the trouble it is said to be at %v", at)
					}
					h.change(func(h *home) { trouble(h, false) })
					after(then)
					if now, ok := m.Outside(tcp); ok != (then > 0) || ok && now != had {
						t.Errorf("mapped at %v, %v before", now, had)
					}
				})
			})
		}
	}
}

// A host that is closed closes its ports first.
func TestMapper_EndsWhileItLooks(t *testing.T) {
	for name, f := range map[string]func(*home){
		"and the router has not answered":  func(h *home) { h.slow = time.Second },
		"and takes a mapping back already": func(h *home) { h.stuck = true },
	} {
		t.Run(name, func(t *testing.T) {
			inHome(t, func(_ *testing.T, h *home, m *Mapper) {
				h.change(func(h *home) { h.ports = nil })
				h.change(f)
				m.Look()
				synctest.Wait()
				h.mu.Lock()
				h.stuck = false // as soon as nobody waits any more
				h.mu.Unlock()
			})
		})
	}
}
