package p2p

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/grpcstream"
)

var (
	_ grpc.ServiceRegistrar    = (*Node)(nil)
	_ grpc.ClientConnInterface = (*Node)(nil)
)

// RegisterService offers a service: pb.RegisterGreeterServer(node, impl) calls it. It must come before the start; after
// it, for a service registered twice, and for an impl of the wrong type it panics with the service's name, as gRPC does.
// A health service of the user's own replaces the node's.
func (n *Node) RegisterService(desc *grpc.ServiceDesc, impl any) {
	n.server.RegisterService(desc, impl)
}

// SetServing sets the health of a service as health checks see it; a registered service is serving from the start on,
// and Close sets all to not serving first.
func (n *Node) SetServing(service string, ok bool) { n.server.SetServing(service, ok) }

// Invoke calls a unary method on any node that offers its service: pb.NewGreeterClient(node) uses it. A call to a
// service that no known node offers waits for one, at most the discovery timeout or the deadline of ctx, and then fails
// with Unavailable. The services that every node has need a named peer: see [Node.Peer].
func (n *Node) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	r, err := n.live()
	if err != nil {
		return err
	}
	return r.channel.Invoke(ctx, method, args, reply, opts...)
}

// NewStream opens a stream on any node that offers the method's service. See [Node.Invoke].
func (n *Node) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	r, err := n.live()
	if err != nil {
		return nil, err
	}
	return r.channel.NewStream(ctx, desc, method, opts...)
}

// Peer returns a connection to one peer for generated clients: pb.NewGreeterClient(node.Peer(target)). The target is a
// peer ID as text (a peer.ID has it by its String method), ID@host:port, ID@RELAY@host:port or a multiaddr that ends in
// /p2p/ID; a malformed one fails each call with InvalidArgument. It is cheap, dials nothing by itself, shares the node's
// one channel, and there is nothing to close. It may be made before the start.
func (n *Node) Peer(target string) grpc.ClientConnInterface {
	return n.conn(func(c *grpcstream.Channel) grpc.ClientConnInterface { return c.Peer(target) })
}

// Service returns a connection to any instance of the service named, whatever the method's own service is: for a
// narrower choice ([WithTag], [Nearest]), or a service that is offered under a further name. With "" it is the service
// in the method's name. Like [Node.Peer] it is cheap and needs no closing; with a bad name or tag each call fails with
// InvalidArgument.
func (n *Node) Service(name string, opts ...CallerOption) grpc.ClientConnInterface {
	return n.conn(func(c *grpcstream.Channel) grpc.ClientConnInterface { return c.Select(selector(name, opts)) })
}

// NewClient returns a gRPC channel of the caller's own to a target, "libp2p:///<peer or service>" or without the
// scheme, with dial options of its own. The caller closes it.
func (n *Node) NewClient(target string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	r, err := n.live()
	if err != nil {
		return nil, err
	}
	return r.channel.NewClient(target, opts...)
}

// Caller tells, inside a handler, who calls: the ID is proven by the connection, and nothing is taken from metadata. It
// is false outside a handler of a node. Name and Services are empty: ask [Node.Peers] for them.
func Caller(ctx context.Context) (PeerInfo, bool) {
	p, ok := grpcstream.PeerFromContext(ctx)
	if !ok {
		return PeerInfo{}, false
	}
	return callerInfo(p), true
}

// conn returns a connection that asks for the node's channel at its calls, so that it may be made before the start.
func (n *Node) conn(choose func(*grpcstream.Channel) grpc.ClientConnInterface) grpc.ClientConnInterface {
	return &lateConn{node: n, choose: choose}
}

type lateConn struct {
	node   *Node
	choose func(*grpcstream.Channel) grpc.ClientConnInterface
	once   sync.Once
	chosen grpc.ClientConnInterface
}

// ready returns the view of the channel. A node has one channel in its life.
func (l *lateConn) ready() (grpc.ClientConnInterface, error) {
	r, err := l.node.live()
	if err != nil {
		return nil, err
	}
	l.once.Do(func() { l.chosen = l.choose(r.channel) })
	return l.chosen, nil
}

func (l *lateConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	cc, err := l.ready()
	if err != nil {
		return err
	}
	return cc.Invoke(ctx, method, args, reply, opts...)
}

func (l *lateConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	cc, err := l.ready()
	if err != nil {
		return nil, err
	}
	return cc.NewStream(ctx, desc, method, opts...)
}
