package host

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"
)

// newQUICManager is libp2p's default constructor of what its QUIC sockets share (incoming connections are counted
// from their first packet, outgoing ones leave from the listening port), on sockets that keep quic-go quiet.
func newQUICManager(reset quic.StatelessResetKey, token quic.TokenGeneratorKey, rm network.ResourceManager, lc fx.Lifecycle) (*quicreuse.ConnManager, error) {
	var sockets udpSockets
	m, err := quicreuse.NewConnManager(reset, token,
		quicreuse.OverrideListenUDP(sockets.listen),
		quicreuse.VerifySourceAddress(rm.VerifySourceAddress),
		quicreuse.ConnContext(func(ctx context.Context, client *quic.ClientInfo) (context.Context, error) {
			remote, err := quicreuse.ToQuicMultiaddr(client.RemoteAddr, quic.Version1)
			if err != nil {
				remote = nil // the resource manager decides about unknown addresses
			}
			scope, err := rm.OpenConnection(network.DirInbound, false, remote)
			if err != nil {
				return ctx, err
			}
			context.AfterFunc(ctx, scope.Done)
			return network.WithConnManagementScope(ctx, scope), nil
		}),
	)
	if err != nil {
		return nil, err
	}
	lc.Append(fx.StopHook(func() error {
		sockets.closed.Store(true)
		return m.Close()
	}))
	return m, nil
}

// udpSockets opens sockets until it is closed. libp2p does not wait for the dials under way when it closes, and a socket
// that one of them opens afterwards would be closed by nobody. It opens them under the lock under which it then closes
// all, so that none comes in between.
type udpSockets struct{ closed atomic.Bool }

func (s *udpSockets) listen(network string, at *net.UDPAddr) (net.PacketConn, error) {
	if s.closed.Load() {
		return nil, net.ErrClosed
	}
	c, err := net.ListenUDP(network, at)
	if err != nil {
		return nil, err
	}
	growBuffers(c)
	return &quietUDPConn{UDPConn: c}, nil
}

// udpBuffer is the size that quic-go wants of both buffers of a socket.
const udpBuffer = 7 << 20

// bufferChecks is how often quic-go asks for the raw socket in order to look at a buffer's size.
const bufferChecks = 2

var errBuffersSet = errors.New("host: the buffers have been set")

// quietUDPConn keeps quic-go from printing to the standard logger that the system grants smaller buffers than it
// wants, as most systems do. It does so by hiding the raw socket while quic-go looks at the sizes.
type quietUDPConn struct {
	*net.UDPConn
	asked atomic.Int32
}

// SyscallConn implements [syscall.Conn].
func (c *quietUDPConn) SyscallConn() (syscall.RawConn, error) {
	if c.asked.Load() < bufferChecks && c.asked.Add(1) <= bufferChecks {
		return nil, errBuffersSet
	}
	return c.UDPConn.SyscallConn()
}
