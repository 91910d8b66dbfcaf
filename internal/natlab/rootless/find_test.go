package rootless_test

import (
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/nodetest"
)

// found is how soon after the start of its process a node calls a service by name.
const found = 1500 * time.Millisecond

// mustGreetByName calls the service by its name, which only b offers.
func (w *wan) mustGreetByName(from *p2p.Node, begin time.Time) {
	w.t.Helper()
	text, err := nodetest.Greet(w.t, from)
	if err != nil || !strings.HasPrefix(text, "b ") {
		w.t.Errorf("%v after the start: answer %q, error %v", time.Since(begin), text, err)
	}
	if took := time.Since(begin); took > found {
		w.t.Errorf("it took %v", took)
	}
}

// asker starts a node that offers nothing.
func (w *wan) asker(kind hosttest.RouterKind, opts ...p2p.Option) *p2p.Node {
	w.t.Helper()
	n := w.Router(kind).Node(w.options("asker", opts...)...)
	w.mustStart(n)
	return n
}

// A service is found by its name among those whom the relay carries.
func TestWAN_FoundByNameThroughTheRelay(t *testing.T) {
	for _, kind := range []hosttest.RouterKind{hosttest.PortRestricted, hosttest.Symmetric} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			inWAN(t, func(t *testing.T, w *wan) {
				b := w.node(w.Router(kind), "b")
				w.Await(recovery, func() string { return reserved(b, w.relay) })
				begin := time.Now()
				a := w.asker(kind)
				w.mustGreetByName(a, begin)
				if kind != hosttest.Symmetric {
					w.directWithin(found-time.Since(begin), a, b)
				}
				t.Logf("after %v", time.Since(begin))
			})
		})
	}
}

// A service is found by its name in the table that five public nodes keep, by a node that knows another one of them than
// the one that offers it.
func TestWAN_FoundByNameInTheTable(t *testing.T) {
	t.Parallel()
	inWAN(t, func(t *testing.T, w *wan) {
		relays := nodesOf(w.relay)
		for range 4 {
			key, _ := nodetest.NewKey(t)
			r := w.newRelay(key)
			if err := r.JoinNetwork(place(relays[len(relays)-1])); err != nil {
				t.Fatal(err)
			}
			relays = append(relays, r)
		}
		last := relays[len(relays)-1]
		b := w.node(w.Router(hosttest.PortRestricted), "b", p2p.WAN(place(last)))
		w.Await(recovery, func() string { return reserved(b, last) })
		time.Sleep(10 * time.Second)
		begin := time.Now()
		a := w.asker(hosttest.PortRestricted)
		w.mustGreetByName(a, begin)
		w.directWithin(found-time.Since(begin), a, b)
		t.Logf("after %v", time.Since(begin))
	})
}
