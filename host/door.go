package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
)

// door is a way into a libp2p network for connections that were dialed beside it: a transport that dials nothing, whose
// listener accepts what it is handed. The network has no method for that.
type door struct {
	conns  chan transport.CapableConn
	closed chan struct{}
	close  func()
}

const (
	// doorProtocol selects the door among the transports. No transport of libp2p's speaks the protocol any more.
	doorProtocol = ma.P_PLAINTEXTV2

	// doorAddr is what the door says it listens at: what libp2p's relay client says, which everybody knows to be no address.
	doorAddr = "/p2p-circuit"
)

var (
	errDoorClosed = errors.New("the host is closed")
	errTurnedAway = errors.New("the host did not take it: its gater refused it, or it is closing")
	errNoDial     = errors.New("host: the door is an entrance only")
)

func newDoor(n network.Network) (*door, error) {
	d := &door{conns: make(chan transport.CapableConn), closed: make(chan struct{})}
	d.close = sync.OnceFunc(func() { close(d.closed) })
	transports, ok := n.(transport.TransportNetwork)
	if !ok {
		return nil, fmt.Errorf("host: %T takes no transports", n)
	}
	if err := transports.AddTransport(d); err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	if err := n.Listen(ma.StringCast("/" + ma.ProtocolWithCode(doorProtocol).Name)); err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	return d, nil
}

// enter makes c a connection of the network, and returns it as such. It closes c when it cannot.
func (d *door) enter(n network.Network, c transport.CapableConn) (network.Conn, error) {
	g := &guest{CapableConn: c, gone: make(chan struct{})}
	g.leave = sync.OnceFunc(func() { close(g.gone) })
	in := make(chan network.Conn, 1)
	seen := &network.NotifyBundle{ConnectedF: func(_ network.Network, conn network.Conn) {
		var who *guest
		if conn.As(&who) && who == g {
			in <- conn // once, as the network tells of each connection
		}
	}}
	n.Notify(seen)
	defer n.StopNotify(seen)
	select {
	case d.conns <- g: // the network takes what comes at once
	case <-d.closed:
		_ = c.Close()
		return nil, errDoorClosed
	}
	select {
	case conn := <-in:
		return conn, nil
	case <-g.gone:
	}
	select {
	case conn := <-in: // it was in, and has ended since
		return conn, nil
	default:
		return nil, errTurnedAway
	}
}

// guest is a connection on its way through the door.
type guest struct {
	transport.CapableConn
	gone  chan struct{} // closed with the connection
	leave func()
}

var _ network.ConnStat = (*guest)(nil)

// Stat implements [network.ConnStat]: a relayed connection tells so by it.
func (g *guest) Stat() network.ConnStats {
	if s, ok := g.CapableConn.(network.ConnStat); ok {
		return s.Stat()
	}
	return network.ConnStats{}
}

// As implements [network.MuxedConn].
func (g *guest) As(target any) bool {
	if t, ok := target.(**guest); ok {
		*t = g
		return true
	}
	return g.CapableConn.As(target)
}

// Close implements [network.MuxedConn].
func (g *guest) Close() error {
	defer g.leave()
	return g.CapableConn.Close()
}

// CloseWithError implements [network.MuxedConn].
func (g *guest) CloseWithError(code network.ConnErrorCode) error {
	defer g.leave()
	return g.CapableConn.CloseWithError(code)
}

// Dial implements [transport.Transport].
func (d *door) Dial(context.Context, ma.Multiaddr, peer.ID) (transport.CapableConn, error) {
	return nil, errNoDial
}

// CanDial implements [transport.Transport].
func (d *door) CanDial(ma.Multiaddr) bool { return false }

// Protocols implements [transport.Transport].
func (d *door) Protocols() []int { return []int{doorProtocol} }

// Proxy implements [transport.Transport].
func (d *door) Proxy() bool { return false }

// Listen implements [transport.Transport].
func (d *door) Listen(ma.Multiaddr) (transport.Listener, error) { return entrance{d}, nil }

// Close implements [io.Closer]: libp2p closes its transports.
func (d *door) Close() error {
	d.close()
	return nil
}

// entrance is the door's listener.
type entrance struct{ *door }

// Accept implements [transport.Listener].
func (e entrance) Accept() (transport.CapableConn, error) {
	select {
	case c := <-e.conns:
		return c, nil
	case <-e.closed:
		return nil, transport.ErrListenerClosed
	}
}

// Addr implements [transport.Listener].
func (e entrance) Addr() net.Addr { return doorNetAddr{} }

// Multiaddr implements [transport.Listener].
func (e entrance) Multiaddr() ma.Multiaddr { return ma.StringCast(doorAddr) }

// doorNetAddr is the door's place, which is none.
type doorNetAddr struct{}

// Network implements [net.Addr].
func (doorNetAddr) Network() string { return "door" }

// String implements [net.Addr].
func (doorNetAddr) String() string { return doorAddr }
