package host_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
)

func TestNew_UsersOptionsWin(t *testing.T) {
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	limits := &network.NullResourceManager{}
	h := newHost(t, host.Config{
		Identity:  other,
		UserAgent: "ours",
		Listen:    []string{"127.0.0.1:0"},
		Libp2p: []libp2p.Option{
			libp2p.Identity(key),
			libp2p.UserAgent("theirs"),
			libp2p.ResourceManager(limits),
			libp2p.ConnectionManager(&connmgr.NullConnMgr{}),
			libp2p.Security(noise.ID, noise.New),
			libp2p.Transport(tcp.NewTCPTransport),
			libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { return []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.9/tcp/1")} }),
		},
	})
	if !h.ID().MatchesPrivateKey(key) {
		t.Error("another identity")
	}
	if h.Network().ResourceManager() != limits {
		t.Error("another resource manager")
	}
	if _, ok := h.ConnManager().(*connmgr.NullConnMgr); !ok {
		t.Error("another connection manager")
	}
	if got := fmt.Sprint(host.Addrs(h)); got != "[/ip4/192.0.2.9/tcp/1]" {
		t.Errorf("addresses %s", got)
	}
	listen := h.Network().ListenAddresses()
	if len(listen) != 1 || strings.Contains(listen[0].String(), "quic") {
		t.Errorf("listening at %v, want TCP only", listen)
	}
	from := newHost(t, host.Config{})
	if err := from.Connect(t.Context(), peer.AddrInfo{ID: h.ID(), Addrs: listen}); err != nil {
		t.Fatal(err)
	}
	if got := from.Network().ConnsToPeer(h.ID())[0].ConnState().Security; got != noise.ID {
		t.Errorf("security %s", got)
	}
	if v, _ := from.Peerstore().Get(h.ID(), "AgentVersion"); v != "theirs" {
		t.Errorf("agent version %v", v)
	}
}

func TestNew_PrivateNetworkKeyExcludesQUIC(t *testing.T) {
	t.Parallel()
	key := pnet.PSK(make([]byte, 32))
	_, err := host.New(host.Config{Libp2p: []libp2p.Option{libp2p.PrivateNetwork(key)}})
	if err == nil || !strings.Contains(err.Error(), "QUIC") || !strings.Contains(err.Error(), "tcp.NewTCPTransport") {
		t.Errorf("error %v, want one that says what to do", err)
	}
	inside := func() corehost.Host {
		return newHost(t, host.Config{
			Listen: []string{"127.0.0.1:0"},
			Libp2p: []libp2p.Option{libp2p.PrivateNetwork(key), libp2p.Transport(tcp.NewTCPTransport)},
		})
	}
	a, b := inside(), inside()
	if err := connect(t, a, b, ma.P_TCP); err != nil {
		t.Error(err)
	}
	if err := connect(t, newHost(t, host.Config{}), b, ma.P_TCP); err == nil {
		t.Error("an outsider is connected")
	}
}

// A host that could not be built leaves nothing behind; TestMain looks for goroutines.
func TestNew_FailsCleanly(t *testing.T) {
	want := errors.New("not today")
	if _, err := host.New(host.Config{Libp2p: []libp2p.Option{func(*libp2p.Config) error { return want }}}); !errors.Is(err, want) {
		t.Errorf("error %v", err)
	}
	if _, err := host.New(host.Config{Listen: []string{"nonsense"}}); err == nil {
		t.Error("no error")
	}
}

func TestNew_LimitsAreOurs(t *testing.T) {
	h := newHost(t, host.Config{})
	if _, ok := h.Network().ResourceManager().(*network.NullResourceManager); ok {
		t.Error("no limits")
	}
	if got := fmt.Sprintf("%T", h.ConnManager()); !strings.Contains(got, "BasicConnMgr") {
		t.Errorf("connection manager %s", got)
	}
}

// A default host speaks nothing by which it would serve or ask third parties.
func TestNew_SpeaksOnlyWhatItNeeds(t *testing.T) {
	h := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}})
	for _, p := range h.Mux().Protocols() {
		switch p {
		case "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0":
		default:
			t.Errorf("it speaks %s", p)
		}
	}
}

// gater is a user's own, which refuses one peer.
type gater struct {
	refused peer.ID
	mu      sync.Mutex
	asked   []string
}

func (g *gater) ask(what string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, what)
	return true
}
func (g *gater) InterceptPeerDial(peer.ID) bool               { return g.ask("peer") }
func (g *gater) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return g.ask("addr") }
func (g *gater) InterceptAccept(network.ConnMultiaddrs) bool  { return g.ask("accept") }

func (g *gater) InterceptSecured(_ network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	return g.ask("secured") && p != g.refused
}

func (g *gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) {
	return g.ask("upgraded"), 0
}

func TestGate_UsersGaterIsAskedToo(t *testing.T) {
	a, stranger := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}}), newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}})
	own := &gater{refused: stranger.ID()}
	allow, err := host.NewAllowList("", a.ID(), stranger.ID())
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}, Allow: allow, Libp2p: []libp2p.Option{libp2p.ConnectionGater(own)}})
	if err := connect(t, a, h, ma.P_TCP); err != nil {
		t.Error(err)
	}
	_ = connect(t, stranger, h, ma.P_TCP) // the dialer's handshake may end before the other side refuses
	if len(h.Network().ConnsToPeer(stranger.ID())) > 0 {
		t.Error("the peer that the user's gater refuses is connected")
	}
	if err := connect(t, h, stranger, ma.P_TCP); err == nil {
		t.Error("dialed the peer that the user's gater refuses")
	}
	own.mu.Lock()
	defer own.mu.Unlock()
	for _, what := range []string{"peer", "addr", "accept", "secured", "upgraded"} {
		if !strings.Contains(strings.Join(own.asked, " "), what) {
			t.Errorf("not asked about %s", what)
		}
	}
}

// TestGate_RefusesOverBothTransports is TestGate_StrangerGetsOnlyTheHandshake on real sockets.
func TestGate_RefusesOverBothTransports(t *testing.T) {
	allow, err := host.NewAllowList("")
	if err != nil {
		t.Fatal(err)
	}
	for _, transport := range []int{ma.P_TCP, ma.P_QUIC_V1} {
		closed := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}, Allow: allow, UserAgent: "secret"})
		stranger := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}})
		learned, err := stranger.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
		if err != nil {
			t.Fatal(err)
		}
		refused, err := stranger.EventBus().Subscribe(new(event.EvtPeerConnectednessChanged))
		if err != nil {
			t.Fatal(err)
		}
		if err := connect(t, stranger, closed, transport); err == nil {
			// Over QUIC the dialer's handshake ends before the other side refuses.
			await(t, refused, func(e any) bool {
				c, ok := e.(event.EvtPeerConnectednessChanged)
				return ok && c.Connectedness == network.NotConnected
			})
		}
		if err := connect(t, closed, stranger, transport); err == nil {
			t.Error("the closed host dials a stranger")
		}
		select {
		case e := <-learned.Out():
			t.Errorf("the stranger has learned %v", e)
		default:
		}
		if p, _ := stranger.Peerstore().GetProtocols(closed.ID()); len(p) > 0 {
			t.Errorf("the stranger knows protocols %v", p)
		}
		_, _ = learned.Close(), refused.Close()
	}
}

// await reads events until one is wanted.
func await(t *testing.T, s event.Subscription, wanted func(any) bool) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case e := <-s.Out():
			if wanted(e) {
				return
			}
		case <-timeout:
			t.Fatal("no such event")
		}
	}
}

// A peer with many protocols is remembered with all of them; libp2p's default forgets a list of more than 128.
func TestNew_RemembersManyProtocols(t *testing.T) {
	a := newHost(t, host.Config{})
	b := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}, Setup: func(h corehost.Host) error {
		for i := range 400 {
			h.SetStreamHandler(protocol.ID(fmt.Sprintf("/test/%03d", i)), func(s network.Stream) { _ = s.Reset() })
		}
		return nil
	}})
	if err := connect(t, a, b, ma.P_TCP); err != nil {
		t.Fatal(err)
	}
	got, err := a.Peerstore().GetProtocols(b.ID())
	if err != nil || len(got) < 400 {
		t.Errorf("%d protocols, %v", len(got), err)
	}
}

// An office behind one address: many hosts of one process, all connected to one, none refused.
func TestNew_FiftyHostsOnOneMachine(t *testing.T) {
	first := newHost(t, host.Config{Listen: []string{"localhost:0"}})
	at := peer.AddrInfo{ID: first.ID(), Addrs: host.Addrs(first)}
	hosts := make([]corehost.Host, 49)
	var wg sync.WaitGroup
	for i := range hosts {
		hosts[i] = newHost(t, host.Config{Listen: []string{"localhost:0"}})
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := hosts[i].Connect(ctx, at); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := len(first.Network().Peers()); got != 49 {
		t.Errorf("%d peers", got)
	}
}

// Of many hosts that want the same port exactly one gets it, and the others are told.
func TestListen_Concurrently(t *testing.T) {
	for range 5 {
		if listenConcurrently(t, 12) == 1 {
			return
		}
		// Another program may have taken the port that was free a moment ago.
	}
	t.Error("nobody got the port")
}

// listenConcurrently has hosts listen at one free port and returns how many do.
func listenConcurrently(t *testing.T, n int) (listening int) {
	t.Helper()
	hosts := make([]corehost.Host, n)
	for i := range hosts {
		hosts[i] = newHost(t, host.Config{})
	}
	free := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}})
	at := "127.0.0.1:" + portOf(t, addrsOf(free, ma.P_TCP)[0], ma.P_TCP)
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range hosts {
		wg.Go(func() { errs[i] = host.Listen(hosts[i], at) })
	}
	wg.Wait()
	for i, err := range errs {
		var taken *host.PortTakenError
		switch {
		case err == nil:
			listening++
		case !errors.As(err, &taken):
			t.Error(err)
		case len(hosts[i].Network().ListenAddresses()) > 0:
			t.Errorf("still listening at %v", hosts[i].Network().ListenAddresses())
		}
	}
	if listening > 1 {
		t.Fatalf("%d hosts got the port", listening)
	}
	return listening
}
