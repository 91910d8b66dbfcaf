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
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc/codes"
)

// connectTimeout bounds how long a peer may take from the first packet to gRPC's greeting. libp2p gives up a private
// address after 5 s; what it has to say about it is worth the wait.
const connectTimeout = 6 * time.Second

// findBrief bounds the search for a peer that a relay does not know.
const findBrief = 500 * time.Millisecond

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
	c, connected, err := d.connectAndOpen(ctx, id, hints)
	for range 3 { // the news of a connection that is gone again has ended the dial
		if ctx.Err() != nil || !errors.Is(err, context.Canceled) {
			break
		}
		c, connected, err = d.connectAndOpen(ctx, id, hints)
	}
	if errors.Is(err, network.ErrNoConn) && ctx.Err() == nil { // the one that there was has ended; if a new one does, it is refused
		c, connected, err = d.connectAndOpen(ctx, id, hints)
	}
	if !connected {
		// Addresses may come and go while it is dialed.
		none := errors.Is(err, errUnknownPeer) || errors.Is(err, swarm.ErrNoAddresses) || len(d.host.Peerstore().Addrs(id)) == 0
		if len(hints) == 0 && none && ctx.Err() == nil {
			return nil, errUnknownPeer
		}
		return nil, d.explain(id, err)
	}
	return c, d.explain(id, err)
}

// connectAndOpen connects to the peer and opens a tunnel; connected tells which of the two the error is of.
func (d *dialer) connectAndOpen(ctx context.Context, id peer.ID, hints []ma.Multiaddr) (c net.Conn, connected bool, err error) {
	if err := d.connect(ctx, id, hints); err != nil {
		return nil, false, err
	}
	c, err = Dial(network.WithNoDial(ctx, "grpcstream"), d.host, id, d.protocol)
	return c, true, err
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
// peer is not there, which may be back at once, as may the relay. How often a peer is dialed is the hub's affair.
func (d *dialer) forgive(id peer.ID) {
	n, ok := d.host.Network().(interface{ Backoff() *swarm.DialBackoff })
	if !ok {
		return
	}
	n.Backoff().Clear(id)
	for _, a := range d.host.Peerstore().Addrs(id) {
		if relay, relayed := relayOf(a); relayed {
			n.Backoff().Clear(relay)
		}
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
	if e := refusedByRelay(id, err); e != nil && errors.Is(e, errAwayFromRelay) { // it may be about to come to the relay, where it is looked for again soon
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, findBrief)
		defer cancel()
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
	relays := d.relays(id)
	if !errors.Is(err, context.DeadlineExceeded) || len(relays) == 0 {
		return asError(id, err, d.network)
	}
	return &Error{
		Code: codes.Unavailable, Reason: ReasonNoRoute, Err: err,
		Message: fmt.Sprintf("peer %s did not answer within %s through relay %s", id, connectTimeout, strings.Join(relays, " or ")),
		Remedy:  "check that the peer and the relay are running and that no firewall drops their packets",
	}
}

// relays returns the relays through which the peer is known to be reached, if nothing else is known of where it is.
func (d *dialer) relays(id peer.ID) []string {
	var ids []string
	for _, a := range d.host.Peerstore().Addrs(id) {
		relay, relayed := relayOf(a)
		if !relayed {
			return nil
		}
		ids = append(ids, relay.String())
	}
	return set(ids)
}
