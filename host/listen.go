package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/lynn9388/p2p/internal/addr"
)

// PortTakenError tells that a port to listen at belongs to somebody else.
type PortTakenError struct {
	Network string // "TCP" or "UDP"
	Addr    string // what was asked for, such as "localhost:9388"
	Port    uint16
	Err     error // what the system said
}

// Error implements error.
func (e *PortTakenError) Error() string {
	return fmt.Sprintf("host: listen %q: %s port %d is taken: end the program that uses it, or choose another port (0 for any free one)",
		e.Addr, e.Network, e.Port)
}

// Unwrap returns what the system said.
func (e *PortTakenError) Unwrap() error { return e.Err }

const (
	// freePortTries bounds the search for a port that is free for both TCP and UDP.
	freePortTries = 64

	// A port that was named is tried a few times, each time a pause later: another host that just looks whether the
	// port is free holds it for a moment.
	fixedPortTries = 4
	fixedPortPause = 5 * time.Millisecond
)

// listener is what [Listen] uses of a libp2p network beyond the interface.
type listener interface {
	TransportForListening(a ma.Multiaddr) transport.Transport
	ListenClose(addrs ...ma.Multiaddr)
}

// Listen makes h listen at addrs: "localhost:9388", ":9388" (all addresses), "192.0.2.1:9388", "[::1]:9388", each with
// TCP and QUIC on the same port, or multiaddrs. Port 0 stands for one that is free for both.
//
// A port of which either half is taken is a [*PortTakenError], and after any error nothing of addrs listens. Where the
// machine has no IPv6, or no ::1, the IPv4 half of "localhost" and of all addresses is enough. Only transports that
// the host has are used. The first time, the host also listens where [Config.WebSocket] says.
func Listen(h corehost.Host, addrs ...string) error {
	n, ours := h.(*node)
	if ours {
		n.listening.Lock()
		defer n.listening.Unlock()
	}
	var done []ma.Multiaddr
	for _, a := range addrs {
		bound, err := listen(h, a, addr.ParseListen)
		if err != nil {
			closeListeners(h, done)
			return err
		}
		done = append(done, bound...)
	}
	if !ours || n.webSocket == "" {
		return nil
	}
	if _, err := listen(h, n.webSocket, addr.ParseListenWebSocket); err != nil {
		closeListeners(h, done)
		return err
	}
	n.webSocket = ""
	return nil
}

// listen listens at one of [Listen]'s addresses and returns what was bound.
func listen(h corehost.Host, asked string, parse func(string) ([]ma.Multiaddr, error)) ([]ma.Multiaddr, error) {
	want, err := parse(asked)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	if l, ok := h.Network().(listener); ok {
		want = slices.DeleteFunc(want, func(a ma.Multiaddr) bool { return l.TransportForListening(a) == nil })
	}
	if len(want) == 0 {
		return nil, fmt.Errorf("host: listen %q: the host has no transport for it", asked)
	}
	if n, ok := h.(*node); ok && n.simulated {
		return bind(h, asked, want, 1)
	}
	// An address without a host has its port picked by libp2p, if at all.
	_, port, err := addr.SplitHostPort(asked)
	once, tries, pause := listenAt, fixedPortTries, fixedPortPause
	if err == nil && port == 0 {
		once, tries, pause = listenAnywhere, freePortTries, 0
	}
	for try := 1; ; try++ {
		bound, err := once(h, asked, want)
		var taken *PortTakenError
		if err == nil || try == tries || !errors.As(err, &taken) {
			return bound, err
		}
		<-time.After(time.Duration(try) * pause)
	}
}

// listenAt listens at want, on the ports it names.
func listenAt(h corehost.Host, asked string, want []ma.Multiaddr) ([]ma.Multiaddr, error) {
	want, err := free(h, asked, want)
	if err != nil {
		return nil, err
	}
	return bind(h, asked, want, len(want))
}

// listenAnywhere listens at want on a port that the system says is free for the first of them.
func listenAnywhere(h corehost.Host, asked string, want []ma.Multiaddr) ([]ma.Multiaddr, error) {
	port, err := pickPort(want)
	if err != nil {
		return nil, fmt.Errorf("host: listen %q: no free port: %w", asked, err)
	}
	at := make([]ma.Multiaddr, len(want))
	for i, a := range want {
		at[i] = withPort(a, port)
	}
	if at, err = free(h, asked, at); err != nil {
		return nil, err
	}
	return bind(h, asked, at, len(at))
}

// pickPort returns a port that is free for the first address whose family the machine has.
func pickPort(want []ma.Multiaddr) (uint16, error) {
	var first error
	for _, a := range want {
		c, err := claim(a)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		_ = c.Close()
		return c.port, nil
	}
	return 0, first
}

// withPort returns a with the port in place of its own.
func withPort(a ma.Multiaddr, port uint16) ma.Multiaddr {
	out := make(ma.Multiaddr, 0, len(a))
	for _, c := range a {
		switch c.Protocol().Code {
		case ma.P_TCP, ma.P_UDP:
			with, err := ma.NewComponent(c.Protocol().Name, fmt.Sprint(port))
			if err != nil { // every uint16 is a port
				return a
			}
			out = append(out, *with)
		default:
			out = append(out, c)
		}
	}
	return out
}

// free returns those of want that this machine can bind, after making sure that nobody else has them. libp2p alone
// would not notice: it shares TCP ports and is content when one address of several is bound.
func free(h corehost.Host, asked string, want []ma.Multiaddr) ([]ma.Multiaddr, error) {
	var out []ma.Multiaddr
	var missing error
	four := slices.ContainsFunc(want, func(a ma.Multiaddr) bool { return !isIP6(a) })
	for _, a := range want {
		if shared(h, a) {
			out = append(out, a)
			continue
		}
		c, err := claim(a)
		switch {
		case err == nil:
			_ = c.Close()
			out = append(out, a)
		case errors.Is(err, errNotIP):
			out = append(out, a)
		case errors.Is(err, errAddrInUse):
			return nil, takenError(asked, a, err)
		case four && isIP6(a) && (errors.Is(err, errAddrNotAvailable) || errors.Is(err, errFamily)):
			missing = err
		default:
			return nil, fmt.Errorf("host: listen %q: %w", asked, err)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("host: listen %q: %w", asked, missing)
	}
	return out, nil
}

// shared tells whether a is a WebSocket address at a TCP port at which h listens: it can tell the two apart there.
func shared(h corehost.Host, a ma.Multiaddr) bool {
	if !addr.WebSocket(a) {
		return false
	}
	i := slices.IndexFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_TCP })
	return slices.ContainsFunc(h.Network().ListenAddresses(), a[:i+1].Equal)
}

func takenError(asked string, a ma.Multiaddr, err error) *PortTakenError {
	if port := firstPort([]ma.Multiaddr{a}, ma.P_TCP); port != 0 {
		return &PortTakenError{Network: "TCP", Addr: asked, Port: port, Err: err}
	}
	return &PortTakenError{Network: "UDP", Addr: asked, Port: firstPort([]ma.Multiaddr{a}, ma.P_UDP), Err: err}
}

// errNotIP says that an address is not of TCP or UDP over IP.
var errNotIP = errors.New("no IP address with a TCP or UDP port")

// claimed is a socket that holds a port exclusively.
type claimed struct {
	close func() error
	port  uint16
}

// Close gives the port back.
func (c *claimed) Close() error { return c.close() }

// claim binds a the plain way, without sharing the port.
func claim(a ma.Multiaddr) (*claimed, error) {
	network, at, err := manet.DialArgs(a)
	if err != nil {
		return nil, errNotIP
	}
	var lc net.ListenConfig
	switch network {
	case "tcp4", "tcp6":
		l, err := lc.Listen(context.Background(), network, at)
		if err != nil {
			return nil, err
		}
		return &claimed{l.Close, portNumber(l.Addr())}, nil
	case "udp4", "udp6":
		l, err := lc.ListenPacket(context.Background(), network, at)
		if err != nil {
			return nil, err
		}
		return &claimed{l.Close, portNumber(l.LocalAddr())}, nil
	default:
		return nil, errNotIP
	}
}

func portNumber(a net.Addr) uint16 {
	switch a := a.(type) {
	case *net.TCPAddr:
		return uint16(a.Port)
	case *net.UDPAddr:
		return uint16(a.Port)
	default:
		return 0
	}
}

func isIP6(a ma.Multiaddr) bool {
	ip, ok := addr.IP(a)
	return ok && ip.Is6()
}

// bind listens at want and returns what was bound: at least so many of them, or nothing. UDP comes last, and only when
// all else is bound: libp2p keeps a UDP socket for some time after its listener was closed, so that a port whose TCP half
// was lost to somebody else would be nobody's.
func bind(h corehost.Host, asked string, want []ma.Multiaddr, least int) ([]ma.Multiaddr, error) {
	udp := slices.DeleteFunc(slices.Clone(want), func(a ma.Multiaddr) bool { return !isUDP(a) })
	rest := slices.DeleteFunc(slices.Clone(want), isUDP)
	bound, err := bindSome(h, rest)
	if err == nil && len(bound) >= len(rest) {
		var more []ma.Multiaddr
		more, err = bindSome(h, udp)
		bound = append(bound, more...)
	}
	if err == nil && len(bound) >= least {
		return bound, nil
	}
	closeListeners(h, bound)
	for _, a := range want { // somebody was faster
		if c, cerr := claim(a); cerr == nil {
			_ = c.Close()
		} else if errors.Is(cerr, errAddrInUse) {
			return nil, takenError(asked, a, cerr)
		}
	}
	if err == nil {
		err = fmt.Errorf("only %v of %v", bound, want)
	}
	return nil, fmt.Errorf("host: listen %q: %w", asked, err)
}

// bindSome listens at addrs and returns which of them are bound, also with an error.
func bindSome(h corehost.Host, addrs []ma.Multiaddr) ([]ma.Multiaddr, error) {
	if len(addrs) == 0 {
		return nil, nil
	}
	before := h.Network().ListenAddresses()
	err := h.Network().Listen(addrs...)
	return slices.DeleteFunc(h.Network().ListenAddresses(), func(a ma.Multiaddr) bool {
		return slices.ContainsFunc(before, a.Equal)
	}), err
}

func isUDP(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_UDP)
	return err == nil
}

func closeListeners(h corehost.Host, addrs []ma.Multiaddr) {
	if l, ok := h.Network().(listener); ok && len(addrs) > 0 {
		l.ListenClose(addrs...)
	}
}
