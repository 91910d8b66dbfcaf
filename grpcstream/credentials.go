package grpcstream

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/credentials"
)

// AuthInfo is what a gRPC peer's AuthInfo holds on a connection with [NewCredentials]. A handler needs only
// [PeerFromContext]; a caller gets it from the call option google.golang.org/grpc.Peer.
type AuthInfo struct {
	credentials.CommonAuthInfo
	Peer Peer

	tunnel *tunnel // the server's account of this tunnel; nil outside a Server
}

// AuthType implements credentials.AuthInfo. It returns "libp2p".
func (AuthInfo) AuthType() string { return "libp2p" }

// ValidateAuthority implements credentials.AuthorityValidator. An authority is a label here, a service name or a
// peer ID; one that is the ID of another peer is refused.
func (a AuthInfo) ValidateAuthority(authority string) error {
	if id, err := peer.Decode(authority); err == nil && id != a.Peer.ID {
		return fmt.Errorf("grpcstream: authority %s is not the peer connected to, %s", id, a.Peer.ID)
	}
	return nil
}

// NewCredentials returns credentials for both ends of connections made by [Dial], [Listen], [NewConn] and
// [Server.DialMemory]. They prove nothing again, since libp2p has done so, and check everything: that the connection
// is one of these, and that the peer that answered is the peer that was named, by the address a [Channel] chose or by
// an authority that is a peer ID. Their [AuthInfo] has the level PrivacyAndIntegrity, so per-RPC credentials may be
// sent.
func NewCredentials() credentials.TransportCredentials { return transportCredentials{} }

type transportCredentials struct{}

// identified is a connection whose other end is known.
type identified interface {
	net.Conn
	remote() Peer
}

func (transportCredentials) ClientHandshake(ctx context.Context, authority string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	info, err := authInfo(c)
	if err != nil {
		return nil, nil, err
	}
	if err := info.check(credentials.ClientHandshakeInfoFromContext(ctx).Attributes, authority); err != nil {
		return nil, nil, err
	}
	return c, info, nil
}

func (transportCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	info, err := authInfo(c)
	if err != nil {
		return nil, nil, err
	}
	return c, info, nil
}

func (transportCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "libp2p"}
}

func (transportCredentials) Clone() credentials.TransportCredentials { return transportCredentials{} }

func (transportCredentials) OverrideServerName(string) error { return nil }

// check compares the peer that answered with the one that was named. The attributes of the address count for more than
// the authority, which a dial option or a call can replace.
func (a AuthInfo) check(attrs *attributes.Attributes, authority string) error {
	want, ok := peerAttribute(attrs)
	if !ok {
		return a.ValidateAuthority(authority)
	}
	if want != a.Peer.ID {
		return fmt.Errorf("grpcstream: the peer that answered is %s, not %s", a.Peer.ID, want)
	}
	return nil
}

func authInfo(c net.Conn) (AuthInfo, error) {
	ic, ok := c.(identified)
	if !ok {
		return AuthInfo{}, errNotOurs
	}
	info := AuthInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		Peer:           ic.remote(),
	}
	info.tunnel, _ = c.(*tunnel)
	return info, nil
}

var errNotOurs = errors.New("grpcstream: the connection is not a libp2p stream: its credentials need Dial, Listen or NewConn")

type peerAttributeKey struct{}

// withPeerAttribute names in an address's attributes the peer that must answer there.
func withPeerAttribute(a *attributes.Attributes, id peer.ID) *attributes.Attributes {
	return a.WithValue(peerAttributeKey{}, id)
}

// peerAttribute returns the peer named by withPeerAttribute.
func peerAttribute(a *attributes.Attributes) (peer.ID, bool) {
	id, ok := a.Value(peerAttributeKey{}).(peer.ID)
	return id, ok
}
