package p2ptest

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p"
)

// Converge waits until the network is at rest: every living node has a neighbor that lives, and none that does not,
// each reaches each over neighbors, and every node finds an instance of each service named. It returns how long that
// took, and fails the test with what is missing after the time given.
func (n *Net) Converge(within time.Duration, services ...string) time.Duration {
	n.t.Helper()
	return n.Await(within, func() string { return unsettled(n.living(), services) })
}

// unsettled tells what is missing for nodes to be at rest, or "".
func unsettled(nodes []*p2p.Node, services []string) string {
	near := map[peer.ID][]peer.ID{}
	for _, n := range nodes {
		near[n.ID()] = nil
	}
	for i, n := range nodes {
		for _, p := range n.Peers() {
			if p.State != p2p.StateNeighbor {
				continue
			}
			if _, lives := near[p.ID]; !lives {
				return fmt.Sprintf("node %d keeps %s for a neighbor, which is gone", i, p.ID)
			}
			near[n.ID()] = append(near[n.ID()], p.ID)
		}
		for _, name := range services {
			if !knows(n, name) {
				return fmt.Sprintf("node %d finds no instance of %s", i, name)
			}
		}
	}
	return inPieces(nodes, near)
}

// knows tells whether a node knows an instance of a service, or finds one within a second.
func knows(n *p2p.Node, service string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, err := range n.Instances(ctx, service) {
		return err == nil
	}
	return false
}

// inPieces tells which node has no neighbors, or is not reached from the first one.
func inPieces(nodes []*p2p.Node, near map[peer.ID][]peer.ID) string {
	if len(nodes) < 2 {
		return ""
	}
	reached := map[peer.ID]bool{nodes[0].ID(): true}
	for queue := []peer.ID{nodes[0].ID()}; len(queue) > 0; queue = queue[1:] {
		for _, id := range near[queue[0]] {
			if !reached[id] {
				reached[id] = true
				queue = append(queue, id)
			}
		}
	}
	for i, n := range nodes {
		switch {
		case len(near[n.ID()]) == 0:
			return fmt.Sprintf("node %d has no neighbor", i)
		case !reached[n.ID()]:
			return fmt.Sprintf("node %d is in another part of the network than the first: %d of %d nodes are together", i, len(reached), len(nodes))
		}
	}
	return ""
}
