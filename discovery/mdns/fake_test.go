package mdns

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"
	corenet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
)

// A segment carries the packets of a simulated link, in one millisecond, to all that listen there, the sender too.
type segment struct {
	mu      sync.Mutex
	conns   []*fakeConn
	packets int
	bytes   int
	deaf    bool // nobody hears anything, not even itself
}

type fakeConn struct {
	segment *segment
	machine *fakeMachine
	in      chan []byte
	closed  chan struct{}
	once    sync.Once
}

func (c *fakeConn) read(b []byte) (int, error) {
	select {
	case p := <-c.in:
		return copy(b, p), nil
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *fakeConn) write(b []byte) error {
	c.machine.mu.Lock()
	cut := c.machine.cut
	c.machine.packets++
	c.machine.bytes += len(b)
	c.machine.mu.Unlock()
	if cut {
		return nil
	}
	c.segment.send(slices.Clone(b))
	return nil
}

func (c *fakeConn) close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (s *segment) send(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packets++
	s.bytes += len(b)
	if s.deaf {
		return
	}
	conns := slices.Clone(s.conns)
	time.AfterFunc(time.Millisecond, func() {
		for _, c := range conns {
			c.machine.mu.Lock()
			cut := c.machine.cut
			c.machine.mu.Unlock()
			if cut {
				continue
			}
			select {
			case c.in <- b:
			default: // a full socket buffer
			}
		}
	})
}

// A fakeMachine is a network with simulated interfaces. It has eth0 on a segment unless changed.
type fakeMachine struct {
	mu       sync.Mutex
	segments map[string]*segment // by the interface's name
	ifaces   []host.Interface
	changed  chan struct{}
	cut      bool
	refuse   error
	packets  int
	bytes    int
}

func (m *fakeMachine) watch(ctx context.Context, changed func([]host.Interface)) error {
	for {
		m.mu.Lock()
		ifaces, wait := slices.Clone(m.ifaces), m.changed
		m.mu.Unlock()
		changed(ifaces)
		select {
		case <-wait:
		case <-ctx.Done():
			return nil
		}
	}
}

// set replaces the interfaces.
func (m *fakeMachine) set(ifaces ...host.Interface) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ifaces = ifaces
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *fakeMachine) setCut(cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = cut
}

func (m *fakeMachine) sent() (packets, size int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.packets, m.bytes
}

// addrs expands the host's listening addresses, as package host does.
func (m *fakeMachine) addrs(h corehost.Host) []ma.Multiaddr {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []ma.Multiaddr
	for _, l := range h.Network().ListenAddresses() {
		ip, _ := addr.IP(l)
		if !ip.IsUnspecified() {
			out = append(out, l)
			continue
		}
		_, rest := ma.SplitFirst(l)
		for _, i := range m.ifaces {
			for _, p := range i.Addrs {
				if p.Addr().Is4() == ip.Is4() {
					out = append(out, ma.StringCast(ipPrefix(p.Addr())).Encapsulate(rest))
				}
			}
		}
	}
	return out
}

func ipPrefix(ip netip.Addr) string {
	if ip.Is4() {
		return "/ip4/" + ip.String()
	}
	return "/ip6/" + ip.String()
}

func (m *fakeMachine) open(id linkID, iface host.Interface) (conn, error) {
	m.mu.Lock()
	s, refuse := m.segments[iface.Name], m.refuse
	m.mu.Unlock()
	if refuse != nil {
		return nil, refuse
	}
	c := &fakeConn{segment: s, machine: m, in: make(chan []byte, 256), closed: make(chan struct{})}
	s.mu.Lock()
	s.conns = append(s.conns, c)
	s.mu.Unlock()
	return c, nil
}

// fakeHost is as much of a host as a source uses.
type fakeHost struct {
	corehost.Host
	id  peer.ID
	bus event.Bus
	net *fakeNet
}

type fakeNet struct {
	corenet.Network
	listen []ma.Multiaddr

	mu        sync.Mutex
	connected map[peer.ID]bool
}

func (h *fakeHost) ID() peer.ID              { return h.id }
func (h *fakeHost) EventBus() event.Bus      { return h.bus }
func (h *fakeHost) Network() corenet.Network { return h.net }

func (n *fakeNet) ListenAddresses() []ma.Multiaddr { return n.listen }

func (n *fakeNet) Connectedness(p peer.ID) corenet.Connectedness {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.connected[p] {
		return corenet.Connected
	}
	return corenet.NotConnected
}

// connect notes a connection, or its loss, and tells the host's bus.
func (h *fakeHost) connect(p peer.ID, connected bool) {
	h.net.mu.Lock()
	h.net.connected[p] = connected
	h.net.mu.Unlock()
	state := corenet.NotConnected
	if connected {
		state = corenet.Connected
	}
	em, err := h.bus.Emitter(new(event.EvtPeerConnectednessChanged))
	if err != nil {
		panic(err)
	}
	defer func() { _ = em.Close() }()
	_ = em.Emit(event.EvtPeerConnectednessChanged{Peer: p, Connectedness: state})
}

// A finding is a call of found.
type finding struct {
	at   time.Time
	info peer.AddrInfo
}

// A simulated node.
type sim struct {
	*fakeMachine
	host   *fakeHost
	source *Source
	log    *bytes.Buffer
	cancel context.CancelFunc
	done   chan error

	foundMu sync.Mutex
	found   []finding
}

func newID(tb testing.TB) peer.ID {
	tb.Helper()
	_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// iface is an interface like those of a LAN.
func iface(index int, name string, addrs ...string) host.Interface {
	i := host.Interface{Index: index, Name: name, Flags: net.FlagUp | net.FlagRunning | net.FlagMulticast}
	if name == "lo" {
		i.Flags = net.FlagUp | net.FlagRunning | net.FlagLoopback
	}
	for _, a := range addrs {
		i.Addrs = append(i.Addrs, netip.MustParsePrefix(a))
	}
	return i
}

// newSim makes a node with loopback and eth0 on the segment, which does not run yet. Its number is in its address.
func newSim(tb testing.TB, s *segment, number int) *sim {
	tb.Helper()
	id := newID(tb)
	n := &sim{
		fakeMachine: &fakeMachine{
			segments: map[string]*segment{"lo": {}, "eth0": s},
			ifaces:   []host.Interface{iface(1, "lo", "127.0.0.1/8"), iface(2, "eth0", fmt.Sprintf("192.168.7.%d/24", number))},
			changed:  make(chan struct{}),
		},
		host: &fakeHost{id: id, bus: eventbus.NewBus(), net: &fakeNet{connected: map[peer.ID]bool{}}},
		log:  &bytes.Buffer{},
	}
	n.listen("/ip4/0.0.0.0/tcp/9388", "/ip4/0.0.0.0/udp/9388/quic-v1")
	return n
}

func (n *sim) listen(addrs ...string) {
	n.host.net.listen = nil
	for _, a := range addrs {
		n.host.net.listen = append(n.host.net.listen, ma.StringCast(a))
	}
}

// start runs the node until stop, or the end of the test.
func (n *sim) start(tb testing.TB, network string) {
	tb.Helper()
	n.source = New(Config{Network: network, Logger: slog.New(slog.NewTextHandler(n.log, nil))})
	n.source.net = n.fakeMachine
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // stop ends it, in the bubble
	done := make(chan error, 1)
	n.cancel, n.done = cancel, done
	go func() {
		defer close(done)
		done <- n.source.Run(ctx, n.host, func(info peer.AddrInfo) {
			n.foundMu.Lock()
			defer n.foundMu.Unlock()
			n.found = append(n.found, finding{time.Now(), info})
		})
	}()
	tb.Cleanup(func() { n.stop(tb) }) // also of a test that gave up: a bubble panics about what is left in it, which hides why
}

func (n *sim) stop(tb testing.TB) {
	tb.Helper()
	n.cancel()
	if err := <-n.done; err != nil {
		tb.Errorf("Run: %v", err)
	}
}

// finds returns when and how the node has found another one, after a time.
func (n *sim) finds(other peer.ID, after time.Time) []finding {
	n.foundMu.Lock()
	defer n.foundMu.Unlock()
	var out []finding
	for _, f := range n.found {
		if f.info.ID == other && !f.at.Before(after) {
			out = append(out, f)
		}
	}
	return out
}

func (n *sim) total() int {
	n.foundMu.Lock()
	defer n.foundMu.Unlock()
	return len(n.found)
}

// pass lets simulated time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
