package grpcstream

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// NewClient returns a gRPC channel of the caller's own, who closes it, to a peer (ID, ID@host:port, multiaddr that
// ends in /p2p/ID) or to the instances of a service, in turn. The target may have the scheme libp2p. It belongs to the
// network [DefaultNetwork], and shares no tunnel with anybody, unlike a [Channel].
//
// Calls are held until the peer or an instance of the service is known, at most for 5 s after the first of them or
// until their deadline. Options win over this package's, also in the choice of a balancer, except that credentials,
// dialer, resolver and authority are fixed.
func NewClient(h corehost.Host, target string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	return newClient(h, ChannelConfig{}, newTally(), target, opts)
}

// NewClient returns a gRPC channel of the caller's own, who closes it, in the way of the function [NewClient], with
// the network, the discovery timeout and the server of this channel. It does not end with this channel.
func (ch *Channel) NewClient(target string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	return newClient(ch.host, ch.cfg, ch.guard.all, target, opts)
}

// A client is what a channel of the caller's own is made of. It lives as long as the channel; what runs in the
// background belongs to the resolver, which the channel closes.
type client struct {
	host  corehost.Host
	cfg   ChannelConfig
	sel   *selector
	guard *guard

	unresolved atomic.Pointer[Error] // why there is no address yet
	undialed   atomic.Pointer[Error] // why the last tunnel could not be made
}

func newClient(h corehost.Host, cfg ChannelConfig, all *tally, target string, opts []grpc.DialOption) (*grpc.ClientConn, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	sel, err := parseTarget(target)
	if err != nil {
		return nil, err
	}
	c := &client{host: h, cfg: cfg, sel: sel, guard: newGuard(h, cfg, all)}
	cc, err := grpc.NewClient(Scheme+":///"+c.name(), c.options(opts)...)
	if err != nil {
		return nil, fmt.Errorf("grpcstream: new client: %w", err)
	}
	return cc, nil
}

// name is the target without its addresses; it is the authority of the calls.
func (c *client) name() string {
	if c.sel.peer != "" {
		return c.sel.peer.String()
	}
	return c.sel.service
}

// options returns the dial options: what the user may override, the user's, and what is fixed.
func (c *client) options(user []grpc.DialOption) []grpc.DialOption {
	policy := "round_robin"
	if c.sel.peer != "" {
		policy = "pick_first"
	}
	bo := backoff.DefaultConfig
	bo.BaseDelay, bo.MaxDelay = backoffBase, backoffMax
	opts := append([]grpc.DialOption{grpc.WithResolvers(clientResolverBuilder{c})}, defaultOptions()...)
	opts = append(opts,
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"`+policy+`":{}}]}`),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: bo, MinConnectTimeout: connectTimeout}),
		grpc.WithIdleTimeout(c.cfg.IdleTimeout),
	)
	opts = append(opts, user...)
	return append(opts,
		grpc.WithTransportCredentials(guardedCredentials{NewCredentials(), c.guard}),
		grpc.WithContextDialer(c.dial),
		grpc.WithChainUnaryInterceptor(c.unary),
		grpc.WithChainStreamInterceptor(c.stream),
		grpc.WithNoProxy(),
		grpc.WithAuthority(""),
	)
}

// resolverKey is the key of the resolver in the attributes of its addresses.
type resolverKey struct{}

func (c *client) dial(ctx context.Context, _ string) (net.Conn, error) {
	attrs := credentials.ClientHandshakeInfoFromContext(ctx).Attributes
	r, ok := attrs.Value(resolverKey{}).(*clientResolver)
	id, named := peerAttribute(attrs)
	if !ok || !named {
		return nil, errNoLink
	}
	conn, err := r.dialer.dial(ctx, id, c.sel.addrs)
	if err != nil {
		e := c.asError(asError(id, err, c.cfg.Network))
		c.undialed.Store(e)
		r.notDialed(id)
		return nil, e
	}
	if at, ok := conn.(identified); ok {
		r.dialed(at.remote())
	}
	return conn, nil
}

func (c *client) asError(err error) *Error {
	if e, ok := err.(*Error); ok { //nolint:errorlint // it is one, made here
		return e
	}
	return &Error{Code: codes.Unavailable, Reason: ReasonNoRoute, Message: oneLine(err), Err: err}
}

func (c *client) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return c.explain(invoke(ctx, method, req, reply, cc, opts...))
}

func (c *client) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	return s, c.explain(err)
}

// explain puts a known cause in place of what gRPC made of it, which is its text at best.
func (c *client) explain(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch e := c.unresolved.Load(); {
	case e == nil:
	case st.Code() == codes.DeadlineExceeded, st.Code() == codes.Unavailable && strings.Contains(st.Message(), e.Error()):
		return e
	}
	if e := c.undialed.Load(); e != nil && st.Code() == codes.Unavailable && strings.Contains(st.Message(), e.Error()) {
		return e
	}
	return err
}
