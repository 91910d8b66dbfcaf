package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

const (
	// dialViaTimeout bounds a dial of [DialVia], as libp2p's network bounds one of its own.
	dialViaTimeout = 15 * time.Second

	// maxResolved bounds the addresses that the names among a dial's addresses lead to, and maxRecursion how often one
	// /dnsaddr name may lead to another.
	maxResolved  = 32
	maxRecursion = 4
)

// DialVia connects h to a peer at exactly the addresses given, whether it is connected to the peer already or not, and
// returns the new connection once h has it. That is how a peer gets two connections, one over TCP and one over QUIC:
// libp2p's own dial is content with any that there is. The addresses are dialed side by side and the first that answers is
// taken; the names among them are looked up. What the peerstore knows of the peer, and libp2p's memory of dials that
// failed, play no part, and h's gater is asked as always. What ctx says of the dial, as [network.WithSimultaneousConnect]
// does, is for the transports; a connection that comes up just as ctx ends is kept.
//
// The direction of the new connection reads [network.DirInbound] at h, since libp2p's network has no other way in. h must
// have been built by [New] with [Config.WAN]. What each address met is in the error, a [*swarm.DialError].
func DialVia(ctx context.Context, h corehost.Host, to peer.AddrInfo) (network.Conn, error) {
	n, ok := h.(*node)
	if !ok || n.door == nil {
		return nil, fmt.Errorf("host: dial %s: the host was not built for it: set WAN", to.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, dialViaTimeout)
	defer cancel()
	c, err := n.dialAll(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	conn, err := n.door.enter(n.Network(), c)
	if err != nil {
		return nil, fmt.Errorf("host: dial %s: connection over %s: %w", to.ID, c.RemoteMultiaddr(), err)
	}
	return conn, nil
}

// dialed is how a dial of one address ended.
type dialed struct {
	at   ma.Multiaddr
	conn transport.CapableConn
	err  error
}

// dialAll dials the addresses side by side and returns the first connection; the others are given up.
func (n *node) dialAll(ctx context.Context, to peer.AddrInfo) (transport.CapableConn, error) {
	failed := &swarm.DialError{Peer: to.ID}
	if to.ID == n.ID() {
		failed.Cause = swarm.ErrDialToSelf
		return nil, failed
	}
	if !n.gate.InterceptPeerDial(to.ID) {
		failed.Cause = swarm.ErrGaterDisallowedConnection
		return nil, failed
	}
	addrs, unresolved := n.resolve(ctx, to)
	failed.DialErrors = unresolved
	if len(addrs) == 0 {
		failed.Cause = swarm.ErrNoAddresses
		return nil, failed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialed, len(addrs)) // nobody reads those that are given up
	for _, a := range addrs {
		go func() {
			c, err := n.dialOne(ctx, to.ID, a)
			results <- dialed{a, c, err}
		}()
	}
	for left := len(addrs); left > 0; left-- {
		r := <-results
		if r.err == nil {
			go closeRest(results, left-1)
			return r.conn, nil
		}
		failed.DialErrors = append(failed.DialErrors, swarm.TransportError{Address: r.at, Cause: r.err})
	}
	failed.Cause = swarm.ErrAllDialsFailed
	return nil, failed
}

// closeRest closes the connections of the dials that are left, which end soon because their context has ended.
func closeRest(results <-chan dialed, left int) {
	for range left {
		if r := <-results; r.err == nil {
			_ = r.conn.Close()
		}
	}
}

func (n *node) dialOne(ctx context.Context, p peer.ID, a ma.Multiaddr) (transport.CapableConn, error) {
	if !n.gate.InterceptAddrDial(p, a) {
		return nil, swarm.ErrGaterDisallowedConnection
	}
	via := n.transportFor(a)
	if via == nil {
		return nil, swarm.ErrNoTransport
	}
	return via.Dial(ctx, a, p)
}

// transportFor returns the transport that dials a; nil: none does.
func (n *node) transportFor(a ma.Multiaddr) transport.Transport {
	if t, ok := n.Network().(interface {
		TransportForDialing(a ma.Multiaddr) transport.Transport
	}); ok {
		return t.TransportForDialing(a)
	}
	return nil
}

// resolve returns the addresses without /p2p/ID, those that begin with a name replaced by what the name stands for, and
// which names could not be looked up. One that leads through a relay, or whose name the proxy looks up, stays as it is.
func (n *node) resolve(ctx context.Context, to peer.AddrInfo) (out []ma.Multiaddr, failed []swarm.TransportError) {
	for _, a := range to.Addrs {
		found, err := n.lookUp(ctx, to.ID, a, maxRecursion)
		if err != nil {
			failed = append(failed, swarm.TransportError{Address: a, Cause: err})
		}
		out = append(out, found...)
	}
	out = ma.Unique(out)
	return out[:min(len(out), maxResolved)], failed
}

func (n *node) lookUp(ctx context.Context, p peer.ID, a ma.Multiaddr, depth int) ([]ma.Multiaddr, error) {
	if addr.Relayed(a) || len(a) == 0 {
		return []ma.Multiaddr{a}, nil
	}
	if id, _ := peer.IDFromP2PAddr(a); id == p {
		a, _ = ma.SplitLast(a)
	}
	if skip, ok := n.transportFor(a).(transport.SkipResolver); ok && skip.SkipResolve(ctx, a) {
		return []ma.Multiaddr{a}, nil
	}
	switch a[0].Protocol().Code {
	case ma.P_DNSADDR:
		if depth == 0 {
			return nil, errors.New("the name leads to too many others")
		}
		found, err := n.resolver.ResolveDNSAddr(ctx, p, a, 1, maxResolved)
		var out []ma.Multiaddr
		for _, f := range found {
			more, ferr := n.lookUp(ctx, p, f, depth-1)
			out = append(out, more...)
			err = errors.Join(err, ferr)
		}
		return out, err
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
		return n.resolver.ResolveDNSComponent(ctx, a, maxResolved)
	default:
		return []ma.Multiaddr{a}, nil
	}
}
