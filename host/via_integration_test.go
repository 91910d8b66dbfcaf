package host_test

import (
	"errors"
	"slices"
	"testing"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
)

const loopback = "127.0.0.1:0"

// lastProtocols returns the last protocol of each connection's address, sorted.
func lastProtocols(conns []network.Conn) []string {
	var out []string
	for _, c := range conns {
		a := c.RemoteMultiaddr()
		out = append(out, a[len(a)-1].Protocol().Name)
	}
	slices.Sort(out)
	return out
}

func TestDialVia_ASecondConnectionOverTheOtherTransport(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) {
			to, err := host.New(host.Config{Listen: []string{at}})
			if err != nil {
				t.Skip("no such address here:", err)
			}
			t.Cleanup(func() { _ = to.Close() })
			from := newHost(t, host.Config{Listen: []string{at}, WAN: true})
			for _, protocol := range []int{ma.P_TCP, ma.P_QUIC_V1} {
				dialVia(t, from, to, protocol)
			}
			if got := lastProtocols(from.Network().ConnsToPeer(to.ID())); !slices.Equal(got, []string{"quic-v1", "tcp"}) {
				t.Errorf("connections over %q", got)
			}
			if r := <-ping.Ping(t.Context(), from, to.ID()); r.Error != nil {
				t.Error(r.Error)
			}
		})
	}
}

// dialVia connects over one transport, and uses the connection.
func dialVia(t *testing.T, from, to corehost.Host, protocol int) {
	t.Helper()
	c, err := host.DialVia(t.Context(), from, peer.AddrInfo{ID: to.ID(), Addrs: addrsOf(to, protocol)})
	if err != nil {
		t.Fatal(err)
	}
	if a := c.RemoteMultiaddr(); c.RemotePeer() != to.ID() || a[len(a)-1].Protocol().Code != protocol {
		t.Errorf("connection %s to %s, want one over protocol %d to %s", a, c.RemotePeer(), protocol, to.ID())
	}
	if _, err := host.Ping(t.Context(), c); err != nil {
		t.Error(err)
	}
}

func TestDialVia_Fails(t *testing.T) {
	to := newHost(t, host.Config{Listen: []string{loopback}})
	stranger := newHost(t, host.Config{Listen: []string{loopback}})
	from := newHost(t, host.Config{Listen: []string{loopback}, WAN: true, Allow: only(t, to.ID())})
	closed := newHost(t, host.Config{Listen: []string{loopback}})
	gone := addrsOf(closed, ma.P_TCP)
	_ = closed.Close()
	for name, tc := range map[string]struct {
		from corehost.Host
		to   peer.AddrInfo
		want error
	}{
		"nobody listens":    {from, peer.AddrInfo{ID: to.ID(), Addrs: gone}, swarm.ErrAllDialsFailed},
		"another answers":   {from, peer.AddrInfo{ID: to.ID(), Addrs: addrsOf(stranger, ma.P_TCP)}, swarm.ErrAllDialsFailed},
		"not allowed":       {from, peer.AddrInfo{ID: stranger.ID(), Addrs: addrsOf(stranger, ma.P_TCP)}, swarm.ErrAllDialsFailed},
		"no address":        {from, peer.AddrInfo{ID: to.ID()}, swarm.ErrNoAddresses},
		"no transport":      {from, peer.AddrInfo{ID: to.ID(), Addrs: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/udp/1/webrtc-direct")}}, swarm.ErrNoTransport},
		"itself":            {from, peer.AddrInfo{ID: from.ID(), Addrs: from.Addrs()}, swarm.ErrDialToSelf},
		"a host of the LAN": {to, peer.AddrInfo{ID: stranger.ID(), Addrs: stranger.Addrs()}, nil},
	} {
		c, err := host.DialVia(t.Context(), tc.from, tc.to)
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: connection %v, error %v", name, c, err)
		}
	}
	if n := len(from.Network().Conns()); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// only returns an allow list of the peers.
func only(t *testing.T, ids ...peer.ID) *host.AllowList {
	t.Helper()
	l, err := host.NewAllowList("", ids...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
