package grpcstream

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestChannel_BadTargets(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		ch := o.channel(o.host(), ChannelConfig{})
		for name, cc := range map[string]grpc.ClientConnInterface{
			"not an ID":       ch.Peer("nobody"),
			"empty":           ch.Peer(""),
			"no port":         ch.Peer("12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5@localhost"),
			"an address only": ch.Peer("/ip4/127.0.0.1/tcp/1"),
			"a bad service":   ch.Service("a/b"),
			"no service":      ch.Service(""),
			"of every node":   ch.Service("grpc.health.v1.Health"),
		} {
			_, err := askWho(t.Context(), cc, "x.A")
			if status.Code(err) != codes.InvalidArgument || ReasonOf(err) != ReasonBadTarget {
				t.Errorf("%s: %v", name, err)
			}
			_, err = cc.NewStream(t.Context(), &grpc.StreamDesc{}, "/x.A/Chat")
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s, stream: %v", name, err)
			}
		}
		for _, service := range []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "p2p.nodeinfo.v1.NodeInfoService"} {
			if _, err := askWho(t.Context(), ch, service); status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s through the channel: %v", service, err)
			}
		}
	})
}

func TestChannel_ProtocolNotSupported(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b, c := o.host(), o.host(), o.host()
		o.serve(c, "x.A")
		ch := o.channel(a, ChannelConfig{Network: "elsewhere"})
		o.connect(a, b)
		o.connect(a, c)
		for name, id := range map[string]peer.ID{"no server": b.ID(), "another network": c.ID()} {
			start := time.Now()
			_, err := askWho(t.Context(), ch.Peer(id.String()), "x.A")
			wantReason(t, err, ReasonProtocolNotSupported)
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "elsewhere") {
				t.Errorf("%s: %v", name, err)
			}
			if d := time.Since(start); d > time.Second {
				t.Errorf("%s: after %v", name, d)
			}
		}
		if got := ch.Instances("x.A"); len(got) != 0 {
			t.Errorf("instances from another network: %v", got)
		}
	})
}

// silent takes tunnels and says nothing.
func silent(t *testing.T, o *office) network.StreamHandler {
	t.Helper()
	return func(s network.Stream) {
		o.end = append(o.end, func() { _ = s.Reset() })
		_, _ = io.Copy(io.Discard, s)
	}
}

func TestChannel_SilentPeer(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		b.SetStreamHandler(TunnelProtocol(DefaultNetwork), silent(t, o))
		ch := o.channel(a, ChannelConfig{})
		o.connect(a, b)
		start := time.Now()
		_, err := askWho(t.Context(), ch.Peer(b.ID().String()), "x.A")
		wantReason(t, err, ReasonNoAnswer)
		if d := time.Since(start); d > connectTimeout+time.Second {
			t.Errorf("after %v", d)
		}
		time.Sleep(time.Minute) // the pause has passed: it is being dialed when the deadline comes
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err = askWho(ctx, ch.Peer(b.ID().String()), "x.A"); status.Code(err) != codes.Unavailable {
			t.Errorf("a deadline while the peer is dialed: %v", err)
		}
		b.SetStreamHandler(ServiceProtocol(DefaultNetwork, "x.A"), func(s network.Stream) { _ = s.Reset() })
		time.Sleep(time.Minute)
		if _, err = askWho(t.Context(), ch, "x.A"); err == nil || !strings.Contains(err.Error(), `the one known instance of service "x.A" `) {
			t.Errorf("a call to its service: %v", err)
		}
	})
}

func TestChannel_DoesNotHideAServersDeadline(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		o.serve(b, "x.A")
		ch := o.channel(a, ChannelConfig{})
		o.connect(a, b)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := ch.Invoke(ctx, "/x.A/Hang", nothing(), nothing())
		if status.Code(err) != codes.DeadlineExceeded {
			t.Fatalf("%v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := askWho(ctx, ch, "x.Unknown"); status.Code(err) != codes.Canceled {
			t.Fatalf("canceled while held: %v", err)
		}
	})
}

func TestChannel_WaitForReadyOutlivesTheWait(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.stranger()
		o.serve(b, "x.A")
		viaConfig := `{"methodConfig":[{"name":[{}],"waitForReady":true}]}`
		ch1, ch2 := o.channel(a, ChannelConfig{}), o.channel(a, ChannelConfig{ServiceConfig: viaConfig})
		time.AfterFunc(time.Minute, func() {
			o.link(a, b)
			_, _ = o.net.ConnectPeers(a.ID(), b.ID())
		})
		errs := make(chan error, 3)
		go func() {
			_, err := askWho(t.Context(), ch1, "x.A", grpc.WaitForReady(true))
			errs <- err
		}()
		go func() {
			_, err := askWho(t.Context(), ch2, "x.A")
			errs <- err
		}()
		go func() {
			_, err := askWho(t.Context(), ch1.Peer(b.ID().String()), "x.A", grpc.WaitForReady(true))
			errs <- err
		}()
		for range 3 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := askWho(ctx, ch1, "x.Unknown", grpc.WaitForReady(true))
		wantReason(t, err, ReasonNoInstance)
	})
}

func TestChannel_AfterClose(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		ch := o.channel(o.host(), ChannelConfig{})
		errs := make(chan error)
		go func() {
			_, err := askWho(t.Context(), ch, "x.A")
			errs <- err
		}()
		time.Sleep(time.Second)
		if err := ch.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-errs; err == nil {
			t.Error("a held call got through")
		}
		if err := ch.Close(); err != nil {
			t.Errorf("the second Close: %v", err)
		}
		if _, err := askWho(t.Context(), ch, "x.A"); err == nil {
			t.Error("a call after Close got through")
		}
	})
}

func TestNewChannel_BadConfig(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		h := o.host()
		for name, cfg := range map[string]ChannelConfig{
			"network":        {Network: "A/B"},
			"service config": {ServiceConfig: "{"},
			"options":        {Options: []grpc.DialOption{grpc.WithPerRPCCredentials(nil), grpc.WithCredentialsBundle(bundle{})}},
		} {
			if ch, err := NewChannel(h, cfg); err == nil {
				_ = ch.Close()
				t.Errorf("%s: no error", name)
			}
		}
	})
}

func TestAsError(t *testing.T) {
	id := peer.ID("p")
	for _, test := range []struct {
		err  error
		want Reason
	}{
		{sec.ErrPeerIDMismatch{Expected: id, Actual: "q"}, ReasonWrongPeer},
		{&sec.ErrPeerIDMismatch{Expected: id, Actual: "q"}, ReasonWrongPeer},
		{ErrProtocolNotSupported, ReasonProtocolNotSupported},
		{&network.ConnError{ErrorCode: network.ConnGated}, ReasonRefused},
		{&network.StreamError{ErrorCode: network.StreamGated}, ReasonRefused},
		{errors.New("gater disallows connection to peer"), ReasonRefused},
		{network.ErrResourceLimitExceeded, ReasonBusy},
		{&network.ConnError{ErrorCode: network.ConnRateLimited}, ReasonBusy},
		{errors.New("error reading server preface: EOF"), ReasonNoAnswer},
		{context.DeadlineExceeded, ReasonNoRoute},
		{net.ErrClosed, ReasonNoRoute},
		{errors.New("line\n  * \x1b[31mred"), ReasonNoRoute},
	} {
		err := asError(id, test.err, "net")
		wantReason(t, err, test.want)
		if ReasonOf(status.Convert(err).Err()) != test.want {
			t.Errorf("%v: its status lost the reason", err)
		}
		if strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%q is not fit for a terminal", err)
		}
		var e *Error
		if !errors.As(err, &e) || e.Remedy == "" || !errors.Is(err, test.err) {
			t.Errorf("%v: no remedy, or the cause is lost", err)
		}
	}
	if ReasonOf(nil) != "" || ReasonOf(errors.New("x")) != "" || ReasonOf(status.Error(codes.Unavailable, "x")) != "" {
		t.Error("a reason without one")
	}
}
