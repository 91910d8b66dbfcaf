//go:build linux

package suite

import (
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/natlab"
	"github.com/lynn9388/p2p/internal/poll"
)

// back calls a peer until a call that began after an event succeeds, and returns how long after the event that was.
func (n *node) back(to *node, begin time.Time) (took time.Duration, c Called, failed int) {
	n.t.Helper()
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for ; time.Since(begin) < patience; <-ticker.C {
		c = order[Called](n, "Call", Call{Target: to.id.String(), Timeout: patience})
		if c.Err == "" {
			return time.Since(begin), c, failed
		}
		failed++
		time.Sleep(20 * time.Millisecond) // a call that fails at once must not keep the nodes from recovering
	}
	n.t.Errorf("%s does not reach %s: %s", n.id, to.id, c.Err)
	return time.Since(begin), c, failed
}

// recovered checks that calls work within some time after an event.
func (n *node) recovered(to *node, begin time.Time, within time.Duration, what string) {
	n.t.Helper()
	took, c, failed := n.back(to, begin)
	n.t.Logf("%s: a call succeeds after %v, %s, %d failed before", what, took.Round(time.Millisecond), c.Path, failed)
	if took > promised(within) {
		n.t.Errorf("%s: calls work after %v; want %v", what, took.Round(time.Millisecond), within)
	}
}

// TestRecovery has a pair behind port-restricted NATs, and a third node behind a symmetric one that reaches them over the
// relay only, meet with what happens to networks. Each part begins with calls that work.
func TestRecovery(t *testing.T) {
	const (
		soon    = 5 * time.Second
		orderly = 2 * time.Second
		away    = 5 * time.Second // how long what comes back is gone
	)
	w := newWorld(t, natlab.Config{Delay: hop})
	relay := w.relay()
	leftSite, rightSite, thirdSite := w.Router(natlab.PortRestricted), w.Router(natlab.PortRestricted), w.Router(natlab.Symmetric)
	left, right, third := w.wan(leftSite.Host(), relay), w.wan(rightSite.Host(), relay), w.wan(thirdSite.Host(), relay)
	for _, n := range []*node{left, right, third} {
		n.start()
	}
	for _, part := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"relay killed and back", func(*testing.T) {
			relay.kill()
			time.Sleep(away)
			relay.launch()
			begin := time.Now()
			third.recovered(right, begin, soon, "the third over the relay")
			left.recovered(right, begin, soon, "the left")
			relay.await()
		}},
		{"peer crashed and back on another port", func(*testing.T) {
			right.kill()
			right.setup.Listen = ":9399"
			right.launch()
			begin := time.Now()
			left.recovered(right, begin, soon, "the left")
			third.recovered(right, begin, soon, "the third over the relay")
			right.await()
		}},
		{"peer restarted", func(*testing.T) {
			right.stop()
			right.launch()
			begin := time.Now()
			left.recovered(right, begin, orderly, "the left")
			third.recovered(right, begin, orderly, "the third over the relay")
			right.await()
		}},
		{"address of the host changed", func(*testing.T) {
			right.host.Renumber("eth0")
			begin := time.Now()
			left.recovered(right, begin, soon, "the left")
			third.recovered(right, begin, soon, "the third over the relay")
		}},
		{"address of the router changed", func(*testing.T) {
			rightSite.Renumber()
			begin := time.Now()
			left.recovered(right, begin, soon, "the left")
			third.recovered(right, begin, soon, "the third over the relay")
		}},
		{"mappings flushed", func(*testing.T) {
			rightSite.FlushMappings()
			begin := time.Now()
			left.recovered(right, begin, soon, "the left")
			third.recovered(right, begin, soon, "the third over the relay")
		}},
		{"interface down and up", func(*testing.T) {
			right.host.Pull("eth0")
			time.Sleep(away)
			right.host.Plug("eth0")
			begin := time.Now()
			left.recovered(right, begin, soon, "the left")
			third.recovered(right, begin, soon, "the third over the relay")
		}},
		{"line cut and mended", func(*testing.T) {
			rightSite.Cut()
			time.Sleep(2 * away)
			rightSite.Mend()
			begin := time.Now()
			left.recovered(right, begin, soon, "the left")
			third.recovered(right, begin, soon, "the third over the relay")
		}},
		{"suspended and resumed", func(*testing.T) {
			right.pause()
			time.Sleep(away)
			right.resume()
			begin := time.Now()
			left.recovered(right, begin, soon, "the left")
			third.recovered(right, begin, soon, "the third over the relay")
		}},
	} {
		t.Run(part.name, func(t *testing.T) {
			for _, n := range []*node{relay, left, right, third} {
				n.t = t
			}
			poll.Until(t, patience, poll.Not("calls do not go directly before", func() bool { return left.call(right, 0).Path == "direct" }))
			third.call(right, 0)
			part.run(t)
		})
	}
	for _, n := range []*node{relay, left, right, third} {
		n.t = t
	}
}
