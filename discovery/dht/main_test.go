package dht

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"go.uber.org/goleak"

	"github.com/lynn9388/p2p/discovery"
	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/internal/virtual"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testMember protocol.ID = "/p2p/test/grpc/1.0.0"

// bubble is a simulated network in virtual time.
type bubble struct {
	t   *testing.T
	net *hosttest.Network
	ctx context.Context //nolint:containedctx // the bubble's, for the goroutines that it ends with
	wg  sync.WaitGroup

	nodes []*node
}

type node struct {
	host corehost.Host
	dht  *DHT
}

// settings are how a node is made.
type settings struct {
	Config
	keeper *discovery.KeeperConfig // says what the node takes from others; nil: the table itself does
}

func (n *node) info() peer.AddrInfo { return peer.AddrInfo{ID: n.host.ID(), Addrs: host.Addrs(n.host)} }

func inBubble(t *testing.T, f func(t *testing.T, b *bubble)) {
	t.Helper()
	now := time.Now().Round(0) // signed records have the time, which must not go back in a process
	virtual.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(now))
		ctx, cancel := context.WithCancel(t.Context())
		b := &bubble{t: t, net: hosttest.New(t), ctx: ctx}
		defer func() { // also of a test that gave up: a bubble panics about what is left in it, which hides why
			cancel()
			b.wg.Wait()
			for _, n := range b.nodes {
				if err := n.dht.Close(); err != nil {
					t.Error(err)
				}
			}
			b.net.Close()
		}()
		f(t, b)
	})
}

// node starts a member with a DHT that runs.
func (b *bubble) node(change ...func(*settings)) *node {
	b.t.Helper()
	h := b.net.Host()
	h.SetStreamHandler(testMember, func(s network.Stream) { _ = s.Reset() })
	return b.nodeOn(h, change...)
}

func (b *bubble) nodeOn(h corehost.Host, change ...func(*settings)) *node {
	b.t.Helper()
	s := settings{Config: Config{Network: "test", Member: testMember, Logger: slog.New(slog.DiscardHandler)}}
	for _, f := range change {
		f(&s)
	}
	if s.keeper != nil {
		keeper := discovery.NewKeeper(h, *s.keeper)
		s.Origin = func(p peer.ID) discovery.Origin { return keeper.From("dht", p) }
	}
	d, err := New(h, s.Config)
	if err != nil {
		b.t.Fatal(err)
	}
	b.wg.Go(func() { _ = d.Run(b.ctx) })
	n := &node{host: h, dht: d}
	b.nodes = append(b.nodes, n)
	return n
}

// line starts nodes, each connected to the one before.
func (b *bubble) line(count int, change ...func(*settings)) []*node {
	b.t.Helper()
	nodes := make([]*node, count)
	for i := range nodes {
		nodes[i] = b.node(change...)
		if i > 0 {
			b.connect(nodes[i], nodes[i-1])
		}
	}
	synctest.Wait()
	return nodes
}

func (b *bubble) connect(from, to *node) {
	b.t.Helper()
	synctest.Wait() // until both hosts tell of their handlers
	if err := from.host.Connect(b.ctx, to.info()); err != nil {
		b.t.Fatal(err)
	}
}

// find returns whom one search finds.
func (b *bubble) find(n *node, service string) map[peer.ID]peer.AddrInfo {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	out := make(map[peer.ID]peer.AddrInfo)
	for info, err := range n.dht.Find(ctx, service) {
		if err != nil {
			b.t.Errorf("find: %v", err)
			break
		}
		out[info.ID] = info
	}
	return out
}

// findErr is the error of a search.
func (b *bubble) findErr(n *node, service string) (err error) {
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	for _, e := range n.dht.Find(ctx, service) {
		err = e
	}
	return err
}

func (b *bubble) within(limit time.Duration, what func() string) time.Duration {
	b.t.Helper()
	return poll.Until(b.t, limit, func() string {
		synctest.Wait()
		return what()
	})
}
