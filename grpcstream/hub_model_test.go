package grpcstream

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"
)

// TestHub_Model does random things to a hub and checks what must always hold.
func TestHub_Model(t *testing.T) {
	rapid.Check(t, modelHub)
}

func modelHub(t *rapid.T) {
	h, w := newFakeHub()
	defer h.close()
	clock := time.Now()
	h.now = func() time.Time { return clock }
	services := []string{"x.A", "x.B", "x.C"}
	offered := map[peer.ID][]string{}
	inFlight := map[*hubPeer]int64{}
	given := []*link{}
	calls := []*call{}
	anyPeer := rapid.Custom(func(t *rapid.T) peer.ID { return peer.ID(fmt.Sprint(rapid.IntRange(0, 4).Draw(t, "peer"))) })
	attempt := func(c *call, method string) {
		service := c.service(method)
		l, v := h.pick(c, method)
		if v != picked {
			return
		}
		inFlight[l.peer]++
		given = append(given, l)
		if !w.ups[l] {
			t.Fatalf("picked a link to %s that is not ready", l.peer.id)
		}
		if c.sel.peer != "" {
			if l.peer.id != c.sel.peer {
				t.Fatalf("named %s, picked %s", c.sel.peer, l.peer.id)
			}
			return
		}
		if !slices.Contains(offered[l.peer.id], service) {
			t.Fatalf("%s does not offer %s", l.peer.id, service)
		}
		if c.n > 1 && c.n <= triedMax && slices.Contains(c.tried[:c.n-1], l.peer) {
			for _, p := range h.services[service].all.ready {
				if !c.hasTried(p) {
					t.Fatalf("%s was tried again although %s was not", l.peer.id, p.id)
				}
			}
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"offer": func(t *rapid.T) {
			id := anyPeer.Draw(t, "id")
			offered[id] = rapid.SliceOfNDistinct(rapid.SampledFrom(services), 0, 3, rapid.ID[string]).Draw(t, "services")
			h.offers(id, offer{node: len(offered[id]) > 0, services: offered[id]})
		},
		"call": func(t *rapid.T) {
			c := newCall(selector{})
			if rapid.Bool().Draw(t, "pinned") {
				c.sel.peer = anyPeer.Draw(t, "to")
			}
			calls = append(calls, c)
			attempt(c, "/"+rapid.SampledFrom(services).Draw(t, "service")+"/M")
		},
		"again": func(t *rapid.T) {
			if len(calls) == 0 {
				t.Skip("no call")
			}
			attempt(rapid.SampledFrom(calls).Draw(t, "call"), who1)
		},
		"up": func(t *rapid.T) {
			if len(w.dialing) == 0 {
				t.Skip("nothing dialed")
			}
			w.up(rapid.IntRange(0, len(w.dialing)-1).Draw(t, "which"))
		},
		"fail": func(t *rapid.T) {
			if len(w.dialing) == 0 {
				t.Skip("nothing dialed")
			}
			err := rapid.SampledFrom([]error{errors.New("refused"), errUnknownPeer}).Draw(t, "err")
			w.down(rapid.IntRange(0, len(w.dialing)-1).Draw(t, "which"), err)
		},
		"lose": func(t *rapid.T) {
			for l := range w.ups {
				h.down(l, nil)
				return
			}
			t.Skip("no link")
		},
		"done": func(t *rapid.T) {
			if len(given) > 0 {
				l := given[0]
				given = given[1:]
				l.done(rapid.Bool().Draw(t, "heard"))
				inFlight[l.peer]--
				return
			}
			t.Skip("nothing in flight")
		},
		"back":  func(t *rapid.T) { h.cameBack(anyPeer.Draw(t, "id")) },
		"sweep": func(*rapid.T) { h.sweep() },
		"sleep": func(t *rapid.T) {
			clock = clock.Add(time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond)
		},
		"": func(t *rapid.T) {
			links := map[*hubPeer]int{}
			for _, l := range w.dialing {
				links[l.peer]++
			}
			for p, n := range links {
				if n > 1 {
					t.Fatalf("%s is dialed %d times at once", p.id, n)
				}
			}
			up := map[*hubPeer]int{}
			for l := range w.ups {
				if up[l.peer]++; up[l.peer] > 1 {
					t.Fatalf("two links to %s", l.peer.id)
				}
			}
			for p, n := range inFlight {
				if p.active.Load() != n {
					t.Fatalf("%s: %d in flight, counted %d", p.id, n, p.active.Load())
				}
			}
			for _, s := range h.services {
				if len(s.instances) == 0 {
					t.Fatalf("%s is kept without an instance", s.name)
				}
				for _, i := range s.instances {
					if p := i.peer; s.called && (p.link.Load() != nil) != slices.Contains(s.all.ready, p) {
						t.Fatalf("%s: the list of ready instances is wrong about %s", s.name, p.id)
					}
				}
			}
		},
	})
}
