package grpcstream

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	grpcpeer "google.golang.org/grpc/peer"
)

// PathKind tells how a tunnel reaches the other peer.
type PathKind string

// The kinds of path.
const (
	PathDirect PathKind = "direct" // one libp2p connection between the two
	PathRelay  PathKind = "relay"  // through a relay, which sees traffic but cannot read it
	PathMemory PathKind = "memory" // a node's calls to itself
)

// Peer is the other end of a tunnel. All of it is known from the secure channel and the local connection, nothing
// from what the peer claims.
type Peer struct {
	ID        peer.ID       // proven by the secure channel
	PublicKey crypto.PubKey // the key that ID stands for
	Path      PathKind
	Relay     peer.ID      // who relays; empty unless Path is PathRelay
	Transport string       // "tcp", "quic-v1", "websocket", "memory"; over a relay, of the way to it: "tcp", "quic-v1", "ws"; empty when libp2p does not say
	Addr      ma.Multiaddr // the remote address of the connection; nil in memory
	Since     time.Time    // when the connection was made; zero in memory
}

// PeerFromContext returns who called, in the context of an RPC handler or a server interceptor. It reports false when
// the call did not come over a connection with [NewCredentials].
func PeerFromContext(ctx context.Context) (Peer, bool) {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return Peer{}, false
	}
	info, ok := p.AuthInfo.(AuthInfo)
	return info.Peer, ok
}

// PeerOf describes the other end of a libp2p connection.
func PeerOf(c network.Conn) Peer {
	stat := c.Stat()
	p := Peer{
		ID:        c.RemotePeer(),
		PublicKey: c.RemotePublicKey(),
		Path:      PathDirect,
		Transport: c.ConnState().Transport,
		Addr:      c.RemoteMultiaddr(),
		Since:     stat.Opened,
	}
	if relay, ok := relayOf(p.Addr); ok || stat.Limited {
		p.Path, p.Relay = PathRelay, relay
		p.Transport = transportOf(p.Addr)
	}
	return p
}

// relayOf returns the relay that an address leads through, and whether it leads through one.
func relayOf(a ma.Multiaddr) (relay peer.ID, relayed bool) {
	for _, c := range a {
		switch c.Protocol().Code {
		case ma.P_P2P:
			if id, err := peer.Decode(c.Value()); err == nil {
				relay = id
			}
		case ma.P_CIRCUIT:
			return relay, true
		}
	}
	return "", false
}

// isRelayed reports whether the address leads through a relay.
func isRelayed(a ma.Multiaddr) bool {
	_, relayed := relayOf(a)
	return relayed
}

// transportOf returns the transport of an address, that of the way to the relay if it leads through one.
func transportOf(a ma.Multiaddr) string {
	name := ""
	for _, c := range a {
		switch p := c.Protocol(); p.Code {
		case ma.P_TCP, ma.P_WS, ma.P_WSS, ma.P_QUIC_V1, ma.P_WEBTRANSPORT, ma.P_WEBRTC_DIRECT:
			name = p.Name
		case ma.P_CIRCUIT:
			return name
		}
	}
	return name
}

// selfPeer describes a host to itself.
func selfPeer(h corehost.Host) Peer {
	return Peer{ID: h.ID(), PublicKey: h.Peerstore().PubKey(h.ID()), Path: PathMemory, Transport: "memory"}
}
