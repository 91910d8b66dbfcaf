package grpcstream

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Whatever options a user gives, the channel goes on finding and checking its peers.
func TestChannel_UserOptionsCannotBreakIt(t *testing.T) {
	for name, opt := range map[string]grpc.DialOption{
		"authority":      grpc.WithAuthority("example.com"),
		"idle timeout":   grpc.WithIdleTimeout(time.Second),
		"credentials":    grpc.WithTransportCredentials(insecure.NewCredentials()),
		"service config": grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"pick_first":{}}]}`),
		"no config":      grpc.WithDisableServiceConfig(),
		"resolver":       grpc.WithResolvers(clientResolverBuilder{}),
		"keepalive":      grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Hour}),
		"dialer": grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			return nil, net.ErrClosed
		}),
	} {
		t.Run(name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *office) {
				a, b, c := o.host(), o.host(), o.host()
				o.serve(b, "x.A")
				o.serve(c, "x.B")
				ch := o.channel(a, ChannelConfig{Options: []grpc.DialOption{opt}})
				o.connect(a, b)
				o.connect(a, c)
				for range 2 {
					if id, err := askWho(t.Context(), ch, "x.A"); err != nil || id != b.ID() {
						t.Fatalf("%s, %v", id, err)
					}
					if id, err := askWho(t.Context(), ch, "x.B"); err != nil || id != c.ID() {
						t.Fatalf("%s, %v", id, err)
					}
					time.Sleep(time.Minute)
				}
			})
		})
	}
}

func TestChannel_UserInterceptorsSeeCalls(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		o.serve(b, "x.A")
		replace := false
		seen := 0
		ch := o.channel(a, ChannelConfig{Options: []grpc.DialOption{
			grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				seen++
				ctx = metadata.AppendToOutgoingContext(ctx, "k", "v")
				if replace {
					ctx = t.Context()
				}
				return invoke(ctx, method, req, reply, cc, opts...)
			}),
		}})
		o.connect(a, b)
		if _, err := askWho(t.Context(), ch, "x.A"); err != nil || seen != 1 {
			t.Fatalf("the interceptor saw %d calls: %v", seen, err)
		}
		// Where a call goes is in its context. Without it the call must not go anywhere.
		replace = true
		if _, err := askWho(t.Context(), ch.Peer(b.ID().String()), "x.A"); status.Code(err) != codes.Internal {
			t.Fatalf("with a replaced context: %v", err)
		}
	})
}

// An interceptor may make a call more than once, one after the other or at the same time.
func TestChannel_InterceptorsThatCallTwice(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		o.serve(b, "x.A")
		both := false
		ch := o.channel(a, ChannelConfig{Options: []grpc.DialOption{
			grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				if !both {
					_ = invoke(ctx, method, req, reply, cc, opts...)
					return invoke(ctx, method, req, reply, cc, opts...)
				}
				errs := make(chan error)
				for range 2 {
					go func() { errs <- invoke(ctx, method, req, new(wrapperspb.StringValue), cc, opts...) }()
				}
				return errors.Join(<-errs, <-errs)
			}),
		}})
		start := time.Now()
		_, err := askWho(t.Context(), ch, "x.A")
		wantReason(t, err, ReasonNoInstance)
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("called twice, held for %v", d)
		}
		both = true
		o.connect(a, b)
		for range 100 {
			_ = ch.Invoke(t.Context(), "/x.A/Who", wrapperspb.String("?"), new(wrapperspb.StringValue))
		}
		if p := ch.hub.peers[b.ID()]; p.active.Load() != 0 || p.picks.Load() != 200 {
			t.Errorf("%d calls, %d of them in flight", p.picks.Load(), p.active.Load())
		}
	})
}
