package grpcstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multistream"
	"github.com/quic-go/quic-go"
)

// ErrSelf is in the error of a [Dial] to the host's own ID: libp2p cannot dial itself. [Server.DialMemory] can.
var ErrSelf = errors.New("grpcstream: a host cannot dial itself")

// Dial opens a stream to the peer that speaks one of the protocols, and returns it as a connection. It connects to the
// peer where there is no connection yet, to addresses that the host knows; it waits neither for identify nor, with
// one protocol or one that the peer is known to speak, for the answer to the opening. A refusal is then the error of
// the first Read, an [ErrProtocolNotSupported]. Of several protocols the first that the peer speaks is taken.
//
// ctx bounds the opening only, not the life of the connection. A connection over a relay is accepted. What was written
// to a connection that is closed before the peer answered may be lost. Otherwise the connection is as [NewConn] says.
func Dial(ctx context.Context, h corehost.Host, p peer.ID, pids ...protocol.ID) (net.Conn, error) {
	c, err := dial(ctx, h, p, pids)
	if err != nil {
		return nil, fmt.Errorf("grpcstream: dial %s: %w", p, err)
	}
	return c, nil
}

func dial(ctx context.Context, h corehost.Host, p peer.ID, pids []protocol.ID) (*conn, error) {
	if p == h.ID() {
		return nil, ErrSelf
	}
	if len(pids) == 0 {
		return nil, errors.New("no protocol given")
	}
	for {
		s, err := openStream(network.WithAllowLimitedConn(ctx, "grpcstream"), h, p)
		if err != nil {
			return nil, err
		}
		c, err := negotiate(ctx, h, s, pids)
		if err == nil {
			return c, nil
		}
		_ = s.Reset()
		if !s.Conn().IsClosed() || ctx.Err() != nil || newest(h.Network().ConnsToPeer(p), s.Conn()) == nil {
			return nil, err
		}
	}
}

// openStream opens a stream without a protocol. host.Connect and host.NewStream would wait for identify.
func openStream(ctx context.Context, h corehost.Host, p peer.ID) (network.Stream, error) {
	n := h.Network()
	if c := n.Connectedness(p); c != network.Connected && c != network.Limited {
		if err := connect(ctx, h, p); err != nil {
			return nil, err
		}
	}
	var ending []network.Conn
	why := network.ErrNoConn
	for {
		c := newest(n.ConnsToPeer(p), ending...)
		if c == nil {
			return nil, why
		}
		s, err := c.NewStream(ctx)
		if err == nil || !isEnding(c, err) || ctx.Err() != nil {
			return s, err
		}
		if ending = append(ending, c); !c.IsClosed() && !errors.Is(err, swarm.ErrConnClosed) {
			why = err // it may say what the other side has against it
		}
	}
}

func connect(ctx context.Context, h corehost.Host, p peer.ID) error {
	if no, _ := network.GetNoDial(ctx); no {
		return network.ErrNoConn
	}
	if len(h.Peerstore().Addrs(p)) == 0 {
		return h.Connect(ctx, peer.AddrInfo{ID: p}) // a routed host finds addresses
	}
	_, err := h.Network().DialPeer(ctx, p)
	return err
}

// isEnding tells whether a connection did not take a stream because it ends. It refuses streams before it says that it is
// closed: libp2p takes it off its lists first, and QUIC clears up first.
func isEnding(c network.Conn, err error) bool {
	if c.IsClosed() || errors.Is(err, swarm.ErrConnClosed) {
		return true
	}
	if _, ok := errors.AsType[*network.ConnError](err); ok {
		return true
	}
	_, idle := errors.AsType[*quic.IdleTimeoutError](err)
	return idle
}

// newest returns the open connection that was made last, but for those given to leave out, one over a relay only if there
// is no other; nil: there is none. libp2p would take the one with the most streams: after a change of the peer's address
// that is the dead one.
func newest(conns []network.Conn, but ...network.Conn) network.Conn {
	var best network.Conn
	relayed := false
	for _, c := range conns {
		if c.IsClosed() || slices.Contains(but, c) {
			continue
		}
		r := overRelay(c)
		if best == nil || relayed && !r || relayed == r && c.Stat().Opened.After(best.Stat().Opened) {
			best, relayed = c, r
		}
	}
	return best
}

func negotiate(ctx context.Context, h corehost.Host, s network.Stream, pids []protocol.ID) (*conn, error) {
	pid := pids[0]
	if len(pids) > 1 {
		known, err := h.Peerstore().SupportsProtocols(s.Conn().RemotePeer(), pids...)
		if err != nil || len(known) == 0 {
			return ask(ctx, s, pids)
		}
		pid = known[0]
	}
	nego, err := proposeProtocol(ctx, s, pid)
	if err != nil {
		return nil, err
	}
	c := newConn(s, defaultWriteStall)
	c.nego = nego
	return c, nil
}

// ask goes through the protocols one by one, a round trip each.
func ask(ctx context.Context, s network.Stream, pids []protocol.ID) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, negotiationTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	pid, err := multistream.SelectOneOf(pids, s)
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if refused := new(multistream.ErrNotSupported[protocol.ID]); errors.As(err, refused) {
		return nil, fmt.Errorf("%w %v", ErrProtocolNotSupported, pids)
	}
	if err != nil {
		return nil, err
	}
	if err := s.SetProtocol(pid); err != nil {
		return nil, err
	}
	return newConn(s, defaultWriteStall), nil
}
