//go:build linux

package suite

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/natlab"
	"github.com/lynn9388/p2p/internal/netns"
)

// promised is the time that something may take. It is held where the runs are counted, on a machine that has nothing else
// to do; otherwise it is three times as long.
func promised(d time.Duration) time.Duration {
	if os.Getenv(runsEnv) == "" {
		return 3 * d
	}
	return d
}

// times are what the runs of a test took.
type times []time.Duration

func (s times) String() string {
	if len(s) == 0 {
		return "none"
	}
	sorted := slices.Sorted(slices.Values(s))
	return fmt.Sprintf("%d times: median %v, from %v to %v", len(s), sorted[len(s)/2].Round(time.Millisecond),
		sorted[0].Round(time.Millisecond), sorted[len(s)-1].Round(time.Millisecond))
}

func (s times) median() time.Duration {
	if len(s) == 0 {
		return time.Hour
	}
	return slices.Sorted(slices.Values(s))[len(s)/2]
}

// TestReservation measures how soon after its start a node can be reached through a relay.
func TestReservation(t *testing.T) {
	w := newWorld(t, natlab.Config{Delay: hop})
	relay := w.relay()
	silent := w.node(w.Public(), setup{}) // it does not run: its host refuses
	gone := w.Router(natlab.None)
	vanished := w.node(gone.Host(), setup{})
	gone.Cut() // packets are lost
	site := w.Router(natlab.PortRestricted)
	host := site.Host()
	for _, tc := range []struct {
		name   string
		relays []*node
	}{
		{"one", []*node{relay}},
		{"one of two refuses", []*node{silent, relay}},
		{"one of two is silent", []*node{vanished, relay}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var took times
			for range runs(t) {
				site.FlushMappings()
				n := w.wan(host, tc.relays...)
				n.start()
				if at := n.reservedAfter(); at > 0 {
					took = append(took, at)
				} else {
					t.Errorf("no reservation: %+v", order[Standing](n, "Status", struct{}{}))
				}
				n.stop()
			}
			t.Logf("reserved after the start of the process, %v", took)
			if took.median() > promised(500*time.Millisecond) {
				t.Error("the median is above 0.5 s")
			}
		})
	}
}

// reservedAfter waits until the node can be reached through a relay; 0: it cannot.
func (n *node) reservedAfter() time.Duration {
	n.t.Helper()
	return order[time.Duration](n, "Reserved", patience)
}

// pairing is two nodes that start at once, of which the left calls the right.
type pairing struct {
	name        string
	left, right natlab.Kind
	sameSite    bool
	mute        bool // no multicast DNS
	delay       time.Duration
	loss        float64
	relays      int
	listen      string
	within      time.Duration // until they are directly connected, from the start of the processes
}

func pairings() []pairing {
	const any4 = "/ip4/0.0.0.0/tcp/9388"
	pr, nat2, blocked := natlab.PortRestricted, natlab.DoubleNAT, natlab.UDPBlocked
	return []pairing{
		{name: "port-restricted", left: pr, right: pr, relays: 1, within: time.Second},
		{name: "port-restricted, TCP alone", left: pr, right: pr, relays: 1, listen: any4, within: time.Second},
		{name: "double NAT", left: nat2, right: pr, relays: 1, within: time.Second},
		{name: "double NAT, both", left: nat2, right: nat2, relays: 1, within: time.Second},
		{name: "50 ms and 5 % loss", left: pr, right: pr, delay: 50 * time.Millisecond, loss: 0.05, relays: 1, within: 4 * time.Second},
		{name: "UDP blocked on the left", left: blocked, right: pr, relays: 2, within: 1500 * time.Millisecond},
		{name: "UDP blocked on the right", left: pr, right: blocked, relays: 2, within: 1500 * time.Millisecond},
		{name: "UDP blocked on both", left: blocked, right: blocked, relays: 2, within: 1500 * time.Millisecond},
		{name: "firewalls", left: natlab.Firewall, right: natlab.Firewall, relays: 1, within: 3 * time.Second},
		{name: "symmetric to restricted", left: natlab.Symmetric, right: natlab.Restricted, relays: 1, within: 3 * time.Second},
		{name: "restricted to symmetric", left: natlab.Restricted, right: natlab.Symmetric, relays: 1, within: 3 * time.Second},
		{name: "behind one NAT", left: pr, sameSite: true, relays: 1, within: time.Second},
		{name: "behind one NAT, without multicast", left: pr, sameSite: true, mute: true, relays: 1, within: time.Second},
		{name: "behind one symmetric NAT, without multicast", left: natlab.Symmetric, sameSite: true, mute: true, relays: 1, within: time.Second},
	}
}

// TestPairs has two nodes that know one relay and each other's ID get a direct connection.
func TestPairs(t *testing.T) {
	for _, p := range pairings() {
		t.Run(p.name, func(t *testing.T) { pair(t, p) })
	}
}

func pair(t *testing.T, p pairing) {
	delay := p.delay
	if delay == 0 {
		delay = hop
	}
	w := newWorld(t, natlab.Config{Delay: delay, Loss: p.loss})
	var relays []*node
	for range p.relays {
		relays = append(relays, w.relay())
	}
	leftSite := w.Router(p.left)
	rightSite := leftSite
	if !p.sameSite {
		rightSite = w.Router(p.right)
	}
	leftHost, rightHost := leftSite.Host(), rightSite.Host()
	var direct, first times
	for i := range runs(t) {
		leftSite.FlushMappings()
		rightSite.FlushMappings()
		took, call, ok := w.meetOnce(leftHost, rightHost, p, relays)
		if call.Failed > 0 {
			t.Errorf("run %d: %d calls failed before the first that did not: %s", i, call.Failed, call.Why)
		}
		first = append(first, call.At)
		if ok {
			direct = append(direct, took)
		} else {
			t.Errorf("run %d: not directly connected", i)
		}
	}
	t.Logf("direct after the start of the processes, %v; first answer, %v", direct, first)
	for _, took := range direct {
		if took > promised(p.within) {
			t.Errorf("directly connected after %v; want %v", took.Round(time.Millisecond), p.within)
		}
	}
}

// meetOnce starts two new nodes at once, the left of which calls the right.
func (w *world) meetOnce(leftHost, rightHost *netns.Host, p pairing, relays []*node) (took time.Duration, first Called, ok bool) {
	w.t.Helper()
	left, right := w.wan(leftHost, relays...), w.wan(rightHost, relays...)
	for _, n := range []*node{left, right} {
		n.setup.Listen, n.setup.Mute = cmp.Or(p.listen, n.setup.Listen), p.mute
	}
	left.setup.First = right.id.String()
	right.launch()
	left.launch()
	left.await()
	right.await()
	first = order[Called](left, "First", struct{}{})
	l, ok := left.direct(right, patience)
	if !ok || os.Getenv(logEnv) != "" {
		w.t.Logf("left: %+v\nright: %+v", order[Standing](left, "Status", struct{}{}), order[Standing](right, "Status", struct{}{}))
		left.show()
		right.show()
	}
	left.stop()
	right.stop()
	return l.Opened, first, ok
}
