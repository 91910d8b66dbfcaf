package hosttest

import (
	"net"
	"net/netip"
	"syscall"

	"github.com/libp2p/go-libp2p"
	corehost "github.com/libp2p/go-libp2p/core/host"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"
)

// firstFree is the first of the ports that a socket gets which asks for none and finds [Port] taken.
const firstFree = 49152

// station is where one host is attached to the network.
type station struct {
	net    *Network
	number int
	at     netip.Addr
	home   *Router // nil: the backbone

	sockets map[uint16]*endpoint // guarded by net.mu
}

func (n *Network) newStation(home *Router) *station {
	n.stations++
	return &station{net: n, number: n.stations, home: home}
}

// option connects a host to the network at the station. It dials from the socket at which it listens.
func (s *station) option() libp2p.Option {
	return libp2p.ChainOptions(
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.QUICReuse(func(reset quic.StatelessResetKey, token quic.TokenGeneratorKey, lc fx.Lifecycle) (*quicreuse.ConnManager, error) {
			m, err := quicreuse.NewConnManager(reset, token,
				quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return source(s.at), nil }),
				quicreuse.OverrideListenUDP(func(family string, at *net.UDPAddr) (net.PacketConn, error) {
					if family == "udp6" {
						return nil, syscall.EAFNOSUPPORT
					}
					return s.listen(uint16(at.Port))
				}))
			if err != nil {
				return nil, err
			}
			lc.Append(fx.StopHook(m.Close))
			return m, nil
		}),
		libp2p.WithFxOption(fx.Invoke(func(h corehost.Host) { s.net.attached(h, s) })),
	)
}

// attached remembers where a host is.
func (n *Network) attached(h corehost.Host, s *station) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at[h.Network()] = s
}

// source is the one address of a simulated host.
type source netip.Addr

// PreferredSourceIPForDestination implements [quicreuse.SourceIPSelector].
func (s source) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	return netip.Addr(s).AsSlice(), nil
}

// listen returns a simulated socket. Port 0 stands for Port, or for a free one when that is taken.
func (s *station) listen(port uint16) (net.PacketConn, error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	asked := port
	if port == 0 {
		port = Port
	}
	for s.sockets[port] != nil {
		switch {
		case asked != 0:
			return nil, syscall.EADDRINUSE
		case port == Port:
			port = firstFree
		default:
			port++
		}
	}
	e := &endpoint{SimConn: simnet.NewBlockingSimConn(net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.at, port))), station: s, port: port}
	e.SetUpPacketReceiver(s)
	if s.sockets == nil {
		s.sockets = map[uint16]*endpoint{}
	}
	s.sockets[port] = e
	return e, nil
}

// endpoint is a simulated socket that leaves its station when it is closed.
type endpoint struct {
	*simnet.SimConn
	station *station
	port    uint16
}

// Close implements [net.PacketConn].
func (e *endpoint) Close() error {
	s := e.station
	s.net.mu.Lock()
	if s.sockets[e.port] == e {
		delete(s.sockets, e.port)
	}
	s.net.mu.Unlock()
	return e.SimConn.Close()
}
