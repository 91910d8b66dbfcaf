package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/pace"
	"github.com/lynn9388/p2p/internal/poll"
)

const testMember protocol.ID = "/p2p/test/grpc/1.0.0"

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// node is a host with all of discovery except mDNS, over real sockets.
type node struct {
	h    corehost.Host
	k    *Keeper
	b    *Bootstrap
	stop func()
}

// netw is a number of nodes that can ask one another without gRPC.
type netw struct {
	mu    sync.Mutex
	nodes map[peer.ID]*node
	all   []*node // also those that were stopped, and clones
}

func (w *netw) ask(from corehost.Host) Ask {
	return func(_ context.Context, p peer.ID) ([][]byte, error) {
		w.mu.Lock()
		n := w.nodes[p]
		w.mu.Unlock()
		if n == nil || len(from.Network().ConnsToPeer(p)) == 0 {
			return nil, fmt.Errorf("not connected")
		}
		return n.k.Records(MaxRecords, from.ID(), ScopeTo(n.h.Network(), from.ID())), nil
	}
}

func (w *netw) add(tb testing.TB, hc host.Config, kc KeeperConfig, bc BootstrapConfig, listen string) *node {
	tb.Helper()
	if kc.Member == "" {
		kc.Member = testMember
	}
	hc.Setup = func(h corehost.Host) error {
		h.SetStreamHandler(kc.Member, func(s network.Stream) { _ = s.Reset() })
		return nil
	}
	h, err := host.New(hc)
	if err != nil {
		tb.Fatal(err)
	}
	if kc.Logger == nil {
		kc.Logger = quiet()
	}
	if err := host.Listen(h, listen); err != nil {
		tb.Fatal(err)
	}
	k := NewKeeper(h, kc)
	bc.Keeper = k
	if bc.Logger == nil {
		bc.Logger = kc.Logger
	}
	n := &node{h: h, k: k, b: NewBootstrap(bc)}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // it ends when the cleanup stops the node
	var wg sync.WaitGroup
	wg.Go(func() { _ = k.Run(ctx) })
	wg.Go(func() { _ = k.Follow(ctx, n.b) })
	wg.Go(func() { _ = k.Follow(ctx, NewExchange(k, w.ask(h))) })
	n.stop = sync.OnceFunc(func() {
		w.mu.Lock()
		delete(w.nodes, h.ID())
		w.mu.Unlock()
		cancel()
		_ = h.Close()
		wg.Wait()
	})
	w.mu.Lock()
	if w.nodes == nil {
		w.nodes = make(map[peer.ID]*node)
		tb.Cleanup(w.close)
	}
	w.nodes[h.ID()] = n
	w.all = append(w.all, n)
	w.mu.Unlock()
	return n
}

// close stops all nodes at once.
func (w *netw) close() {
	w.mu.Lock()
	all := w.all
	w.mu.Unlock()
	var wg sync.WaitGroup
	for _, n := range all {
		wg.Go(n.stop)
	}
	wg.Wait()
}

// healthy says what is wrong with the graph of neighbors; empty when each node has between low and high of them and
// the graph is connected.
func (w *netw) healthy(low, high int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	graph := make(map[peer.ID][]peer.ID)
	for id, n := range w.nodes {
		ns := n.k.Neighbors()
		if len(ns) < low || len(ns) > high {
			return fmt.Sprintf("a node has %d neighbors", len(ns))
		}
		graph[id] = ns
	}
	return connectedGraph(graph)
}

func listenPort(h corehost.Host) string {
	for _, a := range h.Network().ListenAddresses() {
		if p, err := a.ValueForProtocol(ma.P_TCP); err == nil {
			return p
		}
	}
	return ""
}

func TestNetwork_ManyNodesToldOfOne(t *testing.T) {
	count := pace.Of(50, 20)
	var w netw
	first := w.add(t, host.Config{}, KeeperConfig{}, BootstrapConfig{}, "127.0.0.1:0")
	seed := "localhost:" + listenPort(first.h)
	for range count - 1 {
		n := w.add(t, host.Config{}, KeeperConfig{}, BootstrapConfig{}, "127.0.0.1:0")
		if err := n.b.Join(seed); err != nil {
			t.Fatal(err)
		}
	}
	// Ten seconds on a machine with nothing else to do; the rest is for those that have.
	t.Logf("whole after %v", poll.Until(t, time.Minute, func() string { return w.healthy(5, DefaultHigh) }))
	var all []*node
	for _, n := range w.nodes {
		all = append(all, n)
	}
	for _, n := range all[:count/5] {
		n.stop()
	}
	t.Logf("whole again after %v", poll.Until(t, time.Minute, func() string { return w.healthy(5, DefaultHigh) }))
}
