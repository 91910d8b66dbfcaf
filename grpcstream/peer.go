package grpcstream

import (
	"context"
	"strings"

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
	Transport string       // "tcp", "quic-v1", "memory"; empty when libp2p does not say
	Addr      ma.Multiaddr // the remote address of the connection; nil in memory
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
	p := Peer{
		ID:        c.RemotePeer(),
		PublicKey: c.RemotePublicKey(),
		Path:      PathDirect,
		Transport: c.ConnState().Transport,
		Addr:      c.RemoteMultiaddr(),
	}
	if c.Stat().Limited || isRelayed(p.Addr) {
		p.Path = PathRelay
	}
	return p
}

// isRelayed reports whether the address leads through a relay.
func isRelayed(a ma.Multiaddr) bool {
	return a != nil && strings.Contains(a.String(), "/p2p-circuit")
}

// selfPeer describes a host to itself.
func selfPeer(h corehost.Host) Peer {
	return Peer{ID: h.ID(), PublicKey: h.Peerstore().PubKey(h.ID()), Path: PathMemory, Transport: "memory"}
}
