package reach_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/host/reach"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/internal/virtual"
)

// world is a network of public relays and of nodes behind routers, in virtual time.
type world struct {
	*hosttest.Network
	t      *testing.T
	relays []corehost.Host
	runs   sync.WaitGroup
	end    context.CancelFunc
	ctx    context.Context //nolint:containedctx // the nodes' of one test
}

// inWorld runs f in virtual time with as many relays, 15 ms one way on every hop.
func inWorld(t *testing.T, relays int, f func(t *testing.T, w *world)) {
	t.Helper()
	virtual.Test(t, func(t *testing.T) {
		w := &world{Network: hosttest.New(t), t: t}
		w.SetLatencyAll(15 * time.Millisecond)
		w.ctx, w.end = context.WithCancel(t.Context())
		defer func() { <-time.After(time.Minute) }() // libp2p's handlers outlast their hosts
		defer w.Close()
		defer w.runs.Wait()
		defer w.end()
		for range relays {
			w.relay()
		}
		f(t, w)
	})
}

func (w *world) relay() corehost.Host {
	r := w.Router(hosttest.Open).HostWith(host.Config{Relay: &host.RelayConfig{}})
	w.relays = append(w.relays, r)
	return r
}

func (w *world) infos() []peer.AddrInfo {
	var out []peer.AddrInfo
	for _, r := range w.relays {
		out = append(out, peer.AddrInfo{ID: r.ID(), Addrs: r.Network().ListenAddresses()})
	}
	return out
}

// node is a host that is kept reachable.
type node struct {
	corehost.Host
	*reach.Reach
	end func()
}

// node returns a new host behind the router that is reachable through the relays.
func (w *world) node(r *hosttest.Router) *node {
	w.t.Helper()
	var relays []peer.ID
	for _, r := range w.relays {
		relays = append(relays, r.ID())
	}
	h := r.HostWith(host.Config{WAN: true, Relays: relays})
	return w.run(h, reach.Config{Relays: w.infos(), Network: "test", Logger: slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
}

func (w *world) run(h corehost.Host, cfg reach.Config) *node {
	w.t.Helper()
	r, err := reach.New(h, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, end := context.WithCancel(w.ctx)
	done := make(chan struct{})
	w.runs.Go(func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
	return &node{h, r, func() { end(); <-done }}
}

// reserved waits until the node is reachable through all relays.
func (w *world) reserved(n *node) time.Duration {
	w.t.Helper()
	return poll.Until(w.t, 30*time.Second, func() string {
		synctest.Wait() // for what follows from it
		for _, r := range n.Status().Relays {
			if !r.Reserved {
				return fmt.Sprintf("no reservation: %+v", n.Status())
			}
		}
		return ""
	})
}

// says waits until the node says so of a relay.
func (w *world) says(n *node, relay int, want string) {
	w.t.Helper()
	poll.Until(w.t, 10*time.Second, func() string {
		if s := n.Status().Relays[relay]; !strings.Contains(s.LastError, want) {
			return fmt.Sprintf("%q instead of %q", s.LastError, want)
		}
		return ""
	})
}

// call connects a to b through the first relay.
func (w *world) call(a, b *node) {
	w.t.Helper()
	circuits := circuits(b)
	if len(circuits) == 0 {
		w.t.Fatalf("no circuit among %v", b.Addrs())
	}
	ctx := network.WithAllowLimitedConn(w.ctx, "test")
	if err := a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: circuits}); err != nil {
		w.t.Fatal(err)
	}
}

// directly waits until both know that they are connected directly.
func (w *world) directly(a, b *node, within time.Duration) time.Duration {
	w.t.Helper()
	return poll.Until(w.t, within, poll.Not("a direct connection", func() bool {
		synctest.Wait() // for what follows from it
		return direct(a, b) && direct(b, a)
	}))
}

func direct(a, b corehost.Host) bool {
	return slices.ContainsFunc(a.Network().ConnsToPeer(b.ID()), func(c network.Conn) bool {
		return !relayedAddr(c.RemoteMultiaddr())
	})
}

func TestReach_PortRestrictedPair(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a, b := w.node(w.Router(hosttest.PortRestricted)), w.node(w.Router(hosttest.PortRestricted))
		t.Logf("reserved after %v", max(w.reserved(a), w.reserved(b)))
		w.call(a, b)
		t.Logf("direct after %v", w.directly(a, b, 5*time.Second))
		t.Logf("%+v", a.Attempts(b.ID()))
	})
}
