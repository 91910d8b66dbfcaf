//go:build linux

package suite

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/natlab"
)

// gridKinds are the rows and columns of the grid.
func gridKinds() []natlab.Kind {
	return []natlab.Kind{
		natlab.None, natlab.Firewall, natlab.FullCone, natlab.Restricted, natlab.PortRestricted, natlab.Symmetric,
		natlab.UDPBlocked, natlab.DoubleNAT, natlab.UPnP, natlab.ProxyOnly,
	}
}

// possible tells whether two nodes behind routers of these kinds can have a direct connection in theory: both get out by
// a common transport, and if one of them is seen at another port by everybody, the other must let in who was not sent
// anything, or who was sent something at another port.
func possible(a, b natlab.Kind) bool {
	letsIn := func(k natlab.Kind) bool {
		switch k {
		case natlab.None, natlab.FullCone, natlab.Restricted, natlab.UPnP:
			return true
		default:
			return false
		}
	}
	switch {
	case a == natlab.ProxyOnly || b == natlab.ProxyOnly:
		return false
	case a == natlab.Symmetric:
		return letsIn(b)
	case b == natlab.Symmetric:
		return letsIn(a)
	default:
		return true
	}
}

// settled is how long a pair is watched that cannot connect directly, before it counts as relayed.
const settled = 3 * time.Second

// cell is what the grid says of a pair.
type cell struct {
	first  Called
	after  time.Duration // from the call's begin to the direct connection
	direct bool
	addr   string
	again  Called // a call at the end
}

func (c cell) String() string {
	switch {
	case c.first.Err != "" || c.again.Err != "":
		return "NO CALL"
	case c.direct:
		return fmt.Sprintf("direct %d", c.after.Milliseconds())
	default:
		return fmt.Sprintf("relay %d", c.first.Took.Milliseconds())
	}
}

// TestGrid has a node behind each kind of router call a node behind each kind. The nodes know the relays only.
func TestGrid(t *testing.T) {
	w := newWorld(t, natlab.Config{Delay: hop})
	kinds := gridKinds()
	relays := []*node{w.relay(), w.relay()}
	side := func() (nodes []*node) {
		for _, k := range kinds {
			nodes = append(nodes, w.behind(k, relays...))
		}
		return nodes
	}
	rows, columns := side(), side()
	for _, n := range append(rows, columns...) {
		n.await()
	}
	for _, n := range append(rows, columns...) {
		order[[]link](n, "Linked", Wanted{Peer: relays[0].id.String(), Limit: patience})
	}
	grid := make([][]cell, len(kinds))
	for i := range grid {
		grid[i] = make([]cell, len(kinds))
	}
	// Each node has one pair at a time.
	for round := range kinds {
		var pairs sync.WaitGroup
		for i := range kinds {
			j := (i + round) % len(kinds)
			pairs.Go(func() { grid[i][j] = meet(rows[i], columns[j], possible(kinds[i], kinds[j])) })
		}
		pairs.Wait()
	}
	t.Log(draw(kinds, grid))
	for i, row := range grid {
		for j, c := range row {
			switch {
			case c.first.Err != "":
				t.Errorf("%v calls %v: %s", kinds[i], kinds[j], c.first.Err)
			case c.again.Err != "":
				t.Errorf("%v calls %v again: %s", kinds[i], kinds[j], c.again.Err)
			case c.direct != possible(kinds[i], kinds[j]):
				t.Errorf("%v and %v: direct %v; in theory %v", kinds[i], kinds[j], c.direct, !c.direct)
			}
		}
	}
}

// behind starts a node behind a router of a kind that looks for no neighbors by itself, so that it meets others by calls.
func (w *world) behind(k natlab.Kind, relays ...*node) *node {
	w.t.Helper()
	site := w.Router(k)
	n := w.wan(site.Host(), relays...)
	n.setup.Low, n.setup.High = 1, len(relays)
	if k == natlab.ProxyOnly {
		n.env = []string{"HTTPS_PROXY=" + site.Proxy()}
		for _, r := range relays {
			n.setup.Relays = append(n.setup.Relays, r.webSocket())
		}
	}
	n.launch()
	return n
}

// webSocket is how a relay is named where only port 443 can be reached.
func (n *node) webSocket() string {
	return fmt.Sprintf("/ip4/%s/tcp/443/ws/p2p/%s", n.host.IP("eth0"), n.id)
}

// meet has one node call another and waits for the direct connection, if there can be one.
func meet(from, to *node, can bool) (c cell) {
	begin := order[Standing](from, "Status", struct{}{}).Now
	c.first = order[Called](from, "Call", Call{Target: to.id.String(), Timeout: patience})
	limit := settled
	if can {
		limit = patience
	}
	if c.first.Err == "" {
		var l link
		if l, c.direct = from.direct(to, limit); c.direct {
			c.after, c.addr = max(0, l.Opened-begin), l.Addr
		}
	}
	c.again = order[Called](from, "Call", Call{Target: to.id.String(), Timeout: patience})
	return c
}

// draw is the grid as text: the first line is whom the nodes call.
func draw(kinds []natlab.Kind, grid [][]cell) string {
	var b strings.Builder
	fmt.Fprintf(&b, "milliseconds from the begin of the first call to the direct connection, or to the answer over the relay\n%-16s", "from \\ to")
	for _, k := range kinds {
		fmt.Fprintf(&b, "%-16v", k)
	}
	for i, row := range grid {
		fmt.Fprintf(&b, "\n%-16v", kinds[i])
		for _, c := range row {
			fmt.Fprintf(&b, "%-16v", c)
		}
	}
	return b.String()
}
