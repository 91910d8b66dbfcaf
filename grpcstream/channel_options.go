package grpcstream

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

const (
	clientKeepaliveTime    = 10 * time.Second // gRPC's floor; servers of this package allow 5 s
	clientKeepaliveTimeout = 3 * time.Second  // with the time above, a half-open tunnel is noticed within 15 s
	maxClientHeaderList    = 16 << 10
)

// defaultOptions are the options of every client of this package that the user's own may override.
func defaultOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:                clientKeepaliveTime,
			Timeout:             clientKeepaliveTimeout,
			PermitWithoutStream: true,
		}),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(tunnelWindow),
		grpc.WithMaxHeaderListSize(maxClientHeaderList),
		grpc.WithReadBufferSize(readBuffer),
		grpc.WithWriteBufferSize(writeBuffer),
	}
}

// options returns the channel's dial options: what the user may override, the user's, and what is fixed.
func (ch *Channel) options(serviceConfig string) []grpc.DialOption {
	// gRPC asks the resolvers in order, so this one is first, and takes the last of all other options.
	opts := append([]grpc.DialOption{grpc.WithResolvers(hubResolver{ch.hub, serviceConfig})}, defaultOptions()...)
	opts = append(opts, ch.cfg.Options...)
	return append(opts,
		grpc.WithTransportCredentials(guardedCredentials{NewCredentials(), ch.guard}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			l := linkFrom(ctx)
			if l == nil {
				return nil, errNoLink
			}
			c, err := ch.dialer.dial(ctx, l.peer.id, l.hints)
			if at, ok := c.(identified); ok && err == nil {
				l.path = at.remote().Path
				l.tunnel, _ = c.(*conn)
			}
			return c, err
		}),
		grpc.WithChainUnaryInterceptor(ch.unary),
		grpc.WithChainStreamInterceptor(ch.stream),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableHealthCheck(),
		grpc.WithNoProxy(),
		grpc.WithAuthority(""),
		grpc.WithIdleTimeout(0),
	)
}

var errNoLink = fmt.Errorf("grpcstream: a connection that the channel did not ask for")

// hubServiceConfig returns the user's service config with the hub as its balancer.
func hubServiceConfig(user string) (string, error) {
	config := map[string]json.RawMessage{}
	if user != "" {
		if err := json.Unmarshal([]byte(user), &config); err != nil {
			return "", fmt.Errorf("grpcstream: service config is not a JSON object: %w", err)
		}
	}
	delete(config, "loadBalancingPolicy")
	config["loadBalancingConfig"] = json.RawMessage(`[{"` + balancerName + `":{}}]`)
	b, err := json.Marshal(config)
	if err != nil {
		return "", fmt.Errorf("grpcstream: service config: %w", err)
	}
	return string(b), nil
}
