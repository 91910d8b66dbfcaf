package host_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log" //nolint:depguard // to see that nobody uses it
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/localport"
)

// newHost returns a host that is closed when the test ends.
func newHost(t *testing.T, cfg host.Config) corehost.Host {
	t.Helper()
	h, err := host.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// addrsOf returns h's addresses that end in the protocol.
func addrsOf(h corehost.Host, protocol int) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range host.Addrs(h) {
		if len(a) > 0 && a[len(a)-1].Protocol().Code == protocol {
			out = append(out, a)
		}
	}
	return out
}

func portOf(t *testing.T, a ma.Multiaddr, protocol int) string {
	t.Helper()
	p, err := a.ValueForProtocol(protocol)
	if err != nil {
		t.Fatalf("%s: %v", a, err)
	}
	return p
}

// connect dials b from a over b's addresses with the protocol.
func connect(t *testing.T, a, b corehost.Host, protocol int) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: addrsOf(b, protocol)})
}

func TestNew_ConnectsOverBothTransports(t *testing.T) {
	for _, tc := range []struct {
		name     string
		protocol int
	}{{"TCP", ma.P_TCP}, {"QUIC", ma.P_QUIC_V1}} {
		t.Run(tc.name, func(t *testing.T) {
			a := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}})
			b := newHost(t, host.Config{Listen: []string{"localhost:0"}, UserAgent: "test/1"})
			b.SetStreamHandler("/echo", func(s network.Stream) {
				_, _ = io.Copy(s, s)
				_ = s.Close()
			})
			if err := connect(t, a, b, tc.protocol); err != nil {
				t.Fatal(err)
			}
			s, err := a.NewStream(t.Context(), b.ID(), "/echo")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if err := s.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(s)
			if err != nil || string(got) != "hello" {
				t.Errorf("echo: %q, %v", got, err)
			}
			if v, _ := a.Peerstore().Get(b.ID(), "AgentVersion"); v != "test/1" {
				t.Errorf("agent version %v", v)
			}
			c := s.Conn()
			if tc.protocol == ma.P_TCP && c.ConnState().Security != "/tls/1.0.0" {
				t.Errorf("security %q, want TLS first", c.ConnState().Security)
			}
			if tc.protocol == ma.P_QUIC_V1 {
				// Outgoing QUIC leaves from the listening port, so that the other side can dial back.
				if got, want := portOf(t, c.LocalMultiaddr(), ma.P_UDP), portOf(t, addrsOf(a, ma.P_QUIC_V1)[0], ma.P_UDP); got != want {
					t.Errorf("local port %s, want the listening port %s", got, want)
				}
			}
		})
	}
}

func TestNew_LocalTCPIsDialedFirst(t *testing.T) {
	var got string
	for range 3 { // QUIC is next, and overtakes TCP where the machine is busy
		a, b := newHost(t, host.Config{}), newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}})
		if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: host.Addrs(b)}); err != nil {
			t.Fatal(err)
		}
		if got = a.Network().ConnsToPeer(b.ID())[0].ConnState().Transport; got == "tcp" {
			return
		}
	}
	t.Errorf("transport %q, want tcp", got)
}

func TestListen_FreePortIsTheSameForBoth(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "localhost:0", ":0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) {
			h, err := host.New(host.Config{Listen: []string{at}})
			if err != nil {
				if at == "[::1]:0" {
					t.Skip("no ::1 on this machine:", err)
				}
				t.Fatal(err)
			}
			defer h.Close()
			ports := map[string]bool{}
			var tcp, udp int
			for _, a := range h.Network().ListenAddresses() {
				if p, err := a.ValueForProtocol(ma.P_TCP); err == nil {
					ports[p] = true
					tcp++
				} else {
					ports[portOf(t, a, ma.P_UDP)] = true
					udp++
				}
			}
			if len(ports) != 1 || ports["0"] || tcp == 0 || tcp != udp {
				t.Errorf("listening addresses %v", h.Network().ListenAddresses())
			}
			for _, a := range host.Addrs(h) {
				if strings.HasPrefix(a.String(), "/ip4/0.0.0.0/") || strings.HasPrefix(a.String(), "/ip6/::/") {
					t.Errorf("unspecified address %s", a)
				}
			}
		})
	}
}

func TestListen_TakenPortIsNamed(t *testing.T) {
	other := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}})
	port := portOf(t, addrsOf(other, ma.P_TCP)[0], ma.P_TCP)

	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	_, tcpPort, _ := net.SplitHostPort(tcp.Addr().String())
	half, udp, udpPort, err := localport.Both() // so that the TCP half is nobody's
	if err != nil {
		t.Fatal(err)
	}
	_ = half.Close()
	defer udp.Close()

	for _, tc := range []struct{ name, at, network, port string }{
		{"another node", "127.0.0.1:" + port, "TCP", port},
		{"another node, all addresses", ":" + port, "TCP", port},
		{"another node, localhost", "localhost:" + port, "TCP", port},
		{"another node, TCP alone", "/ip4/127.0.0.1/tcp/" + port, "TCP", port},
		{"the TCP half", "127.0.0.1:" + tcpPort, "TCP", tcpPort},
		{"the UDP half", "127.0.0.1:" + udpPort, "UDP", udpPort},
		{"the UDP half, all addresses", ":" + udpPort, "UDP", udpPort},
		{"multiaddr", "/ip4/127.0.0.1/udp/" + udpPort + "/quic-v1", "UDP", udpPort},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHost(t, host.Config{})
			err := host.Listen(h, tc.at)
			var taken *host.PortTakenError
			if !errors.As(err, &taken) {
				t.Fatalf("error %v, want a PortTakenError", err)
			}
			if taken.Network != tc.network || taken.Addr != tc.at {
				t.Errorf("error names %s at %s", taken.Network, taken.Addr)
			}
			if !strings.Contains(err.Error(), tc.network+" port "+tc.port+" is taken") || !strings.Contains(err.Error(), tc.at) {
				t.Errorf("error text %q", err)
			}
			if got := h.Network().ListenAddresses(); len(got) != 0 {
				t.Errorf("still listening at %v", got)
			}
		})
	}
}

func TestListen_OneOfSeveralTakenClosesAll(t *testing.T) {
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	h := newHost(t, host.Config{})
	if err := host.Listen(h, "127.0.0.1:0", taken.LocalAddr().String()); err == nil {
		t.Fatal("no error")
	}
	if got := h.Network().ListenAddresses(); len(got) != 0 {
		t.Errorf("still listening at %v", got)
	}
	if err := host.Listen(h, "127.0.0.1:0"); err != nil {
		t.Errorf("listen afterwards: %v", err)
	}
}

func TestListen_AddressOfAnotherMachine(t *testing.T) {
	h := newHost(t, host.Config{})
	err := host.Listen(h, "192.0.2.1:0")
	if err == nil || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("error %v, want one that names the address", err)
	}
	if err := host.Listen(h, "example.com:0"); err == nil {
		t.Error("a host name was taken")
	}
}

func TestIdentify(t *testing.T) {
	a := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}})
	b := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}})
	for _, protocol := range []int{ma.P_TCP, ma.P_QUIC_V1} {
		id, err := host.Identify(t.Context(), a, addrsOf(b, protocol)[0])
		if err != nil || id != b.ID() {
			t.Errorf("%s: %s, %v", addrsOf(b, protocol)[0], id, err)
		}
		if _, err := host.Identify(t.Context(), a, addrsOf(a, protocol)[0]); !errors.Is(err, host.ErrSelf) {
			t.Errorf("own address: %v", err)
		}
	}
	if got := a.Network().Peers(); len(got) != 0 {
		t.Errorf("connections left to %v", got)
	}
	for _, p := range a.Peerstore().PeersWithAddrs() {
		if p != a.ID() {
			t.Errorf("peerstore remembers %s", p)
		}
	}
}

func TestIdentify_NobodyThere(t *testing.T) {
	a := newHost(t, host.Config{})
	at := ma.StringCast("/ip4/127.0.0.1/tcp/1") // nobody is given this port
	_, err := host.Identify(t.Context(), a, at)
	if err == nil || !strings.Contains(err.Error(), at.String()) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v, want one that names the address and the cause", err)
	}
}

func TestIdentify_CloneIsReported(t *testing.T) {
	met := make(chan ma.Multiaddr, 4)
	a := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}, Clone: func(at ma.Multiaddr) { met <- at }})
	b := newHost(t, host.Config{Identity: a.Peerstore().PrivKey(a.ID()), Listen: []string{"127.0.0.1:0"}})
	at := addrsOf(b, ma.P_TCP)[0]
	if _, err := host.Identify(t.Context(), a, at); !errors.Is(err, host.ErrClone) {
		t.Errorf("error %v, want ErrClone", err)
	}
	select {
	case got := <-met:
		if !got.Equal(at) {
			t.Errorf("clone reported at %s, want %s", got, at)
		}
	default:
		t.Error("the clone was not reported")
	}
}

func TestNew_AnnouncedAddresses(t *testing.T) {
	h := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}, Announce: []string{"192.0.2.7", "node.example.org:4001"}})
	port := portOf(t, addrsOf(h, ma.P_TCP)[0], ma.P_TCP)
	var got []string
	for _, a := range host.Addrs(h) {
		got = append(got, a.String())
	}
	for _, want := range []string{
		"/ip4/192.0.2.7/tcp/" + port, "/ip4/192.0.2.7/udp/" + port + "/quic-v1",
		"/dns/node.example.org/tcp/4001", "/dns/node.example.org/udp/4001/quic-v1",
	} {
		if !strings.Contains(strings.Join(got, " "), want) {
			t.Errorf("%s is missing in %v", want, got)
		}
	}
	if _, err := host.New(host.Config{Announce: []string{"0.0.0.0:1"}}); err == nil {
		t.Error("the unspecified address was announced")
	}
}

func TestNew_PrintsNothing(t *testing.T) {
	var printed bytes.Buffer
	log.SetOutput(&printed)
	defer log.SetOutput(os.Stderr)
	h, err := host.New(host.Config{Listen: []string{"localhost:0"}, Libp2p: []libp2p.Option{}})
	if err != nil {
		t.Fatal(err)
	}
	_ = h.Close()
	if printed.Len() > 0 {
		t.Errorf("printed %q", printed.String())
	}
}
