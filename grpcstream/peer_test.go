package grpcstream

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// madeUp is a connection to an address that nobody needs to have.
type madeUp struct {
	network.Conn

	addr ma.Multiaddr
	stat network.ConnStats
}

func (m madeUp) RemotePeer() peer.ID            { return "somebody" }
func (m madeUp) RemotePublicKey() crypto.PubKey { return nil }
func (m madeUp) RemoteMultiaddr() ma.Multiaddr  { return m.addr }
func (m madeUp) Stat() network.ConnStats        { return m.stat }
func (m madeUp) ConnState() network.ConnectionState {
	return network.ConnectionState{Transport: "libp2p's"}
}

func TestPeerOf_Path(t *testing.T) {
	const relay = "12D3KooWEChVMMMzV8acJ53mJHrw1pQ27UAGkCxWXLJutbeUMvVu"
	opened := time.Unix(1_700_000_000, 0)
	for _, test := range []struct {
		name, addr string
		limited    bool
		path       PathKind
		relay      string
		transport  string
	}{
		{"direct", "/ip4/192.0.2.1/tcp/9388", false, PathDirect, "", "libp2p's"},
		{"over QUIC to the relay", "/ip4/192.0.2.1/udp/9388/quic-v1/p2p/" + relay + "/p2p-circuit", true, PathRelay, relay, "quic-v1"},
		{"over WebSocket to the relay", "/dns4/relay.example/tcp/443/tls/ws/p2p/" + relay + "/p2p-circuit", true, PathRelay, relay, "ws"},
		{"a relay without limits", "/ip4/192.0.2.1/tcp/9388/p2p/" + relay + "/p2p-circuit", false, PathRelay, relay, "tcp"},
		{"the way to the relay is not told", "/p2p/" + relay + "/p2p-circuit", true, PathRelay, relay, ""},
		{"limited, by whom is not told", "/ip4/192.0.2.1/tcp/9388", true, PathRelay, "", "tcp"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := PeerOf(madeUp{addr: ma.StringCast(test.addr), stat: network.ConnStats{
				Stats: network.Stats{Opened: opened, Limited: test.limited},
			}})
			if got.Path != test.path || got.Relay.String() != test.relay || got.Transport != test.transport || !got.Since.Equal(opened) {
				t.Errorf("got path %s, relay %q, transport %q, since %v", got.Path, got.Relay, got.Transport, got.Since)
			}
		})
	}
}
