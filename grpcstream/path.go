package grpcstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc/codes"

	"github.com/lynn9388/p2p/internal/safetext"
)

// connectTimeout bounds how long a peer may take from the first packet to gRPC's greeting. libp2p gives up a private
// address after 5 s; what it has to say about it is worth the wait.
const connectTimeout = 6 * time.Second

// A Local is the caller's own server, which libp2p cannot dial. [*Server] is one.
type Local interface {
	// Services returns the services that it offers to other peers.
	Services() []string
	// Tags returns its tags.
	Tags() []string
	// DialMemory opens a tunnel to it.
	DialMemory(ctx context.Context) (net.Conn, error)
}

// A dialer opens tunnels: to a connected peer over its connection, to any other one after connecting, to oneself in
// memory.
type dialer struct {
	host      corehost.Host
	protocol  protocol.ID
	network   string
	self      Local
	directory *directory
	find      func(ctx context.Context, id peer.ID) ([]ma.Multiaddr, error) // nil: nobody is asked where a peer is
}

func newDialer(h corehost.Host, cfg ChannelConfig, d *directory) *dialer {
	return &dialer{
		host: h, protocol: TunnelProtocol(cfg.Network), network: cfg.Network, self: cfg.Self, directory: d, find: cfg.FindPeer,
	}
}

// dial opens a tunnel to the peer, which may be found at hints besides what the host knows. Its errors are [*Error]s,
// except errUnknownPeer.
func (d *dialer) dial(ctx context.Context, id peer.ID, hints []ma.Multiaddr) (net.Conn, error) {
	if id == d.host.ID() {
		if d.self == nil {
			return nil, &Error{
				Code: codes.Unavailable, Reason: ReasonNoRoute,
				Message: fmt.Sprintf("%s is this host itself, which offers nothing to itself", id),
				Remedy:  "set ChannelConfig.Self",
			}
		}
		c, err := d.self.DialMemory(ctx)
		return c, d.explain(id, err)
	}
	err := d.connect(ctx, id, hints)
	for range 3 { // the news of a connection that is gone again has ended the dial
		if ctx.Err() != nil || !errors.Is(err, context.Canceled) {
			break
		}
		err = d.connect(ctx, id, hints)
	}
	if err != nil {
		// Addresses may come and go while it is dialed.
		none := errors.Is(err, errUnknownPeer) || errors.Is(err, swarm.ErrNoAddresses) || len(d.host.Peerstore().Addrs(id)) == 0
		if len(hints) == 0 && none && ctx.Err() == nil {
			return nil, errUnknownPeer
		}
		return nil, d.explain(id, err)
	}
	c, err := Dial(ctx, d.host, id, d.protocol)
	return c, d.explain(id, err)
}

// connect connects to the peer unless it is connected. It ends as soon as the peer is, by whatever way: a dial to
// addresses that are gone does not hold up a tunnel over a connection that the peer made.
func (d *dialer) connect(ctx context.Context, id peer.ID, hints []ma.Multiaddr) error {
	if d.connected(id) {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer d.directory.onConnected(id, cancel)()
	d.host.Peerstore().AddAddrs(id, hints, peerstore.TempAddrTTL)
	if len(hints) > 0 || slices.ContainsFunc(d.host.Peerstore().Addrs(id), isRelayed) {
		d.forgive(id)
	}
	err := d.connectKnown(ctx, id)
	if d.findNew(ctx, id, err) {
		err = d.connectKnown(ctx, id)
	}
	if err == nil || d.connected(id) {
		return nil
	}
	return err
}

// forgive has libp2p dial addresses again that failed a moment ago: somebody named them just now, or a relay said that the
// peer is not there, which may be back at once. How often a peer is dialed is the hub's affair.
func (d *dialer) forgive(id peer.ID) {
	if n, ok := d.host.Network().(interface{ Backoff() *swarm.DialBackoff }); ok {
		n.Backoff().Clear(id)
	}
}

// connectKnown connects to the peer at the addresses that the host knows.
func (d *dialer) connectKnown(ctx context.Context, id peer.ID) error {
	if len(d.host.Peerstore().Addrs(id)) == 0 {
		if d.find != nil {
			return errUnknownPeer
		}
		return d.host.Connect(ctx, peer.AddrInfo{ID: id}) // a routed host finds addresses
	}
	_, err := d.host.Network().DialPeer(network.WithAllowLimitedConn(ctx, "grpcstream"), id)
	return err
}

// findNew asks where the peer is after it was not found at the addresses known, and tells whether that gave others.
func (d *dialer) findNew(ctx context.Context, id peer.ID, err error) bool {
	if err == nil || d.find == nil || ctx.Err() != nil || d.connected(id) {
		return false
	}
	found, err := d.find(ctx, id)
	if err != nil {
		return false
	}
	known := d.host.Peerstore().Addrs(id)
	found = slices.DeleteFunc(slices.Clone(found), func(a ma.Multiaddr) bool { return slices.ContainsFunc(known, a.Equal) })
	d.host.Peerstore().AddAddrs(id, found, peerstore.TempAddrTTL)
	return len(found) > 0
}

func (d *dialer) connected(id peer.ID) bool {
	switch d.host.Network().Connectedness(id) {
	case network.Connected, network.Limited:
		return true
	default:
		return false
	}
}

// explain makes an [*Error] of what kept a tunnel to the peer from being made.
func (d *dialer) explain(id peer.ID, err error) error {
	if err == nil {
		return nil
	}
	return asError(id, err, d.network)
}

// asError makes an [*Error] of what kept a tunnel to a peer from being made.
func asError(id peer.ID, err error, networkName string) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := &Error{Code: codes.Unavailable, Err: err}
	mismatch, wrong := asMismatch(err)
	connErr, _ := errors.AsType[*network.ConnError](err)
	streamErr, _ := errors.AsType[*network.StreamError](err)
	text := oneLine(err)
	switch {
	case wrong:
		e.Reason = ReasonWrongPeer
		e.Message = fmt.Sprintf("peer %s was dialed, and %s answered", id, mismatch.Actual)
		e.Remedy = "name the peer that is to be called; nothing was sent to the one that answered"
	case errors.Is(err, ErrProtocolNotSupported), strings.Contains(text, ErrProtocolNotSupported.Error()):
		e.Reason = ReasonProtocolNotSupported
		e.Message = fmt.Sprintf("peer %s does not speak the tunnel protocol of network %q", id, networkName)
		e.Remedy = "check that it serves gRPC and that both nodes have the same network name"
	case connErr != nil && connErr.ErrorCode == network.ConnGated,
		streamErr != nil && streamErr.ErrorCode == network.StreamGated,
		strings.Contains(text, "gater disallows"):
		e.Reason = ReasonRefused
		e.Message = fmt.Sprintf("the connection with peer %s is refused by a policy: %s", id, text)
		e.Remedy = "put each node on the other's allow list"
	case errors.Is(err, network.ErrResourceLimitExceeded),
		connErr != nil && (connErr.ErrorCode == network.ConnResourceLimitExceeded || connErr.ErrorCode == network.ConnRateLimited),
		streamErr != nil && (streamErr.ErrorCode == network.StreamResourceLimitExceeded || streamErr.ErrorCode == network.StreamRateLimited):
		e.Reason = ReasonBusy
		e.Message = fmt.Sprintf("a limit was hit on the way to peer %s: %s", id, text)
		e.Remedy = "try again later, or raise the limit named"
	case lostUnderway(err):
		e.Reason = ReasonNoRoute
		e.Message = fmt.Sprintf("the connection with peer %s was lost: %s", id, text)
		e.Remedy = "check that it is running and that the network between works, and try again"
	case strings.Contains(text, "server preface"):
		e.Reason = ReasonNoAnswer
		e.Message = fmt.Sprintf("peer %s took the tunnel and did not greet in gRPC: %s", id, text)
		e.Remedy = "it hangs, or is no gRPC server: restart it"
	case errors.Is(err, context.DeadlineExceeded):
		e.Reason = ReasonNoRoute
		e.Message = fmt.Sprintf("peer %s did not answer within %s", id, connectTimeout)
		e.Remedy = "check that it is running and that no firewall drops its packets"
	default:
		e.Reason = ReasonNoRoute
		e.Message = fmt.Sprintf("peer %s cannot be reached: %s", id, text)
		e.Remedy = "check that it is running and that its addresses are right"
	}
	return e
}

// asMismatch finds the refusal of somebody else's identity, which libp2p returns as a value or as a pointer.
func asMismatch(err error) (sec.ErrPeerIDMismatch, bool) {
	if m, ok := errors.AsType[sec.ErrPeerIDMismatch](err); ok {
		return m, true
	}
	if m, ok := errors.AsType[*sec.ErrPeerIDMismatch](err); ok && m != nil {
		return *m, true
	}
	return sec.ErrPeerIDMismatch{}, false
}

// oneLine returns an error's text, which may hold what a peer chose, fit to stand in one line.
func oneLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n  * ", " ")
	return safetext.Clean(strings.ReplaceAll(text, "\n", " "))
}
