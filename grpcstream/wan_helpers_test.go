package grpcstream

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/virtual"
)

// A wan is a relay and two hosts: b serves, and a calls it, over the relay until the test connects them.
type wan struct {
	t           *testing.T
	net         *hosttest.Network // nil: real sockets
	relay, a, b corehost.Host
	serve       *Server
	end         []func()
}

// hop is the one-way delay of every link.
const hop = 15 * time.Millisecond

// acrossWAN runs a test in virtual time.
func acrossWAN(t *testing.T, limits host.RelayConfig, test func(t *testing.T, w *wan)) {
	t.Helper()
	acrossRelay(t, func(n *hosttest.Network) (h corehost.Host, end func()) {
		return n.HostWith(host.Config{WAN: true, Relay: &limits}), func() {}
	}, test)
}

// acrossRelay is acrossWAN with a relay of the test's own.
func acrossRelay(t *testing.T, relay func(*hosttest.Network) (h corehost.Host, end func()), test func(t *testing.T, w *wan)) {
	t.Helper()
	virtual.Test(t, func(t *testing.T) {
		n := hosttest.New(t)
		defer n.Close()
		n.SetLatencyAll(hop)
		h, end := relay(n)
		defer end()
		w := &wan{
			t: t, net: n, relay: h,
			a: n.HostWith(host.Config{WAN: true}), b: n.HostWith(host.Config{WAN: true}),
		}
		defer w.close()
		w.start()
		test(t, w)
	})
}

func (w *wan) close() {
	for _, end := range slices.Backward(w.end) {
		end()
	}
}

// start has b serve, and be reachable through the relay.
func (w *wan) start() {
	w.t.Helper()
	w.serve = NewServer(ServerConfig{Logger: muted()})
	w.serve.RegisterService(whoDesc("x.A"), &who{id: w.b.ID()})
	if err := w.serve.Start(w.b); err != nil {
		w.t.Fatal(err)
	}
	w.end = append(w.end, func() { stopNow(w.serve) })
	w.reserve()
}

// reserve connects b to the relay and has it carry to b.
func (w *wan) reserve() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	at := peer.AddrInfo{ID: w.relay.ID(), Addrs: host.Addrs(w.relay)}
	if err := w.b.Connect(ctx, at); err != nil {
		w.t.Fatal(err)
	}
	if _, err := circuit.Reserve(ctx, w.b, at); err != nil {
		w.t.Fatal(err)
	}
}

// away disconnects b from the relay.
func (w *wan) away() {
	w.t.Helper()
	if err := w.b.Network().ClosePeer(w.relay.ID()); err != nil {
		w.t.Fatal(err)
	}
	passed(time.Second)
}

// occupy has the relay carry between another host and b.
func (w *wan) occupy(other corehost.Host) {
	w.t.Helper()
	if err := other.Connect(w.t.Context(), peer.AddrInfo{ID: w.b.ID(), Addrs: w.circuits()}); err != nil {
		w.t.Fatal(err)
	}
}

// circuits are b's addresses through the relay.
func (w *wan) circuits() (out []ma.Multiaddr) {
	through := ma.StringCast("/p2p/" + w.relay.ID().String() + "/p2p-circuit")
	for _, a := range host.Addrs(w.relay) {
		out = append(out, a.Encapsulate(through))
	}
	return out
}

// channel returns a channel of a, which knows b by its addresses through the relay only.
func (w *wan) channel(cfg ChannelConfig) *Channel {
	w.t.Helper()
	w.a.Peerstore().AddAddrs(w.b.ID(), w.circuits(), peerstore.PermanentAddrTTL)
	cfg.Logger = muted()
	ch, err := NewChannel(w.a, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.end = append(w.end, func() { _ = ch.Close() })
	return ch
}

// connect makes a direct connection beside the relayed one, as a punched hole does.
func (w *wan) connect() network.Conn {
	w.t.Helper()
	c, err := host.DialVia(w.t.Context(), w.a, peer.AddrInfo{ID: w.b.ID(), Addrs: w.b.Addrs()})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// conns returns a host's connections to a peer, over the relay or direct.
func conns(from, to corehost.Host, relayed bool) (out []network.Conn) {
	for _, c := range from.Network().ConnsToPeer(to.ID()) {
		if overRelay(c) == relayed {
			out = append(out, c)
		}
	}
	return out
}

// tunnels returns how many tunnels are on a libp2p connection, those that the peer has made included.
func tunnels(c network.Conn) int {
	n := 0
	for _, s := range c.GetStreams() {
		if s.Protocol() == TunnelProtocol(DefaultNetwork) {
			n++
		}
	}
	return n
}

// A traffic calls without a pause, and keeps one stream busy.
type traffic struct {
	t    *testing.T
	ctx  context.Context //nolint:containedctx // its life
	stop func()
	wg   sync.WaitGroup

	mu     sync.Mutex
	calls  int
	failed []error
	last   time.Time     // when the last call succeeded; zero: none has
	gap    time.Duration // the longest between two successes
	paths  []PathKind    // in the order in which calls took them
	begun  time.Time     // when the last of these began
	echoes int
	stream error // how the stream ended
}

// newTraffic makes 50 calls a second with the options, and echoes over one stream every 20 ms.
func newTraffic(t *testing.T, cc grpc.ClientConnInterface, opts ...grpc.CallOption) *traffic {
	t.Helper()
	l := &traffic{t: t}
	l.ctx, l.stop = context.WithCancel(t.Context())
	l.wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-l.ctx.Done():
				return
			case <-tick.C:
				l.wg.Go(func() { l.callWith(cc, strings.Repeat("x", 100), opts...) })
			}
		}
	})
	stream, err := cc.NewStream(l.ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/x.A/Chat")
	if err != nil {
		t.Fatal(err)
	}
	l.wg.Go(func() {
		for {
			err := stream.SendMsg(wrapperspb.String("x"))
			if rerr := stream.RecvMsg(nothing()); rerr != nil {
				err = rerr
			}
			l.mu.Lock()
			if l.echoes++; err != nil {
				l.stream = err
				l.mu.Unlock()
				return
			}
			l.mu.Unlock()
			time.Sleep(20 * time.Millisecond)
		}
	})
	return l
}

// callWith makes one call and notes what became of it.
func (l *traffic) callWith(cc grpc.ClientConnInterface, text string, opts ...grpc.CallOption) {
	ctx, cancel := context.WithTimeout(l.ctx, 20*time.Second)
	defer cancel()
	begun := time.Now()
	var at grpcpeer.Peer
	err := cc.Invoke(ctx, "/x.A/Who", wrapperspb.String(text), nothing(), append(slices.Clone(opts), grpc.Peer(&at))...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return
	}
	now := time.Now()
	l.calls++
	if err != nil {
		l.failed = append(l.failed, err)
		return
	}
	if !l.last.IsZero() {
		l.gap = max(l.gap, now.Sub(l.last))
	}
	l.last = now
	info, _ := at.AuthInfo.(AuthInfo)
	if path := info.Peer.Path; !begun.Before(l.begun) && (len(l.paths) == 0 || l.paths[len(l.paths)-1] != path) {
		l.paths = append(l.paths, path)
	}
	if begun.After(l.begun) {
		l.begun = begun
	}
}

// path returns the path of the calls of now.
func (l *traffic) path() PathKind {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.paths) == 0 {
		return ""
	}
	return l.paths[len(l.paths)-1]
}

// streamEnd returns how the stream ended, or nil.
func (l *traffic) streamEnd() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream
}

// close ends the load and reports what failed, and a gap between two answers that is longer than the limit.
func (l *traffic) close(limit time.Duration) {
	l.t.Helper()
	l.stop()
	l.wg.Wait()
	l.t.Logf("%d calls, %d failed, longest gap %v, %d echoes, paths %v", l.calls, len(l.failed), l.gap, l.echoes, l.paths)
	if l.calls == 0 || len(l.failed) > 0 {
		l.t.Errorf("%d of %d calls failed: %v", len(l.failed), l.calls, l.failed[:min(3, len(l.failed))])
	}
	if l.gap > limit {
		l.t.Errorf("no call got through for %v, want at most %v", l.gap, limit)
	}
}

// passed lets time pass, in a bubble.
func passed(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
