package grpcstream

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// client returns a client of the test's own.
func (o *office) client(h corehost.Host, target string, opts ...grpc.DialOption) *grpc.ClientConn {
	o.t.Helper()
	cc, err := NewClient(h, target, opts...)
	if err != nil {
		o.t.Fatal(err)
	}
	o.end = append(o.end, func() { _ = cc.Close() })
	return cc
}

func TestNewClient_PeerAndService(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		o.serve(b, "x.A")
		o.connect(a, b)
		for _, target := range []string{b.ID().String(), "libp2p:///" + b.ID().String(), "libp2p://" + b.ID().String(), "x.A", "libp2p:///x.A"} {
			var p grpcpeer.Peer
			id, err := askWho(t.Context(), o.client(a, target), "x.A", grpc.Peer(&p))
			if err != nil || id != b.ID() {
				t.Errorf("%s: %s, %v", target, id, err)
			}
			if info, ok := p.AuthInfo.(AuthInfo); !ok || info.Peer.ID != b.ID() {
				t.Errorf("%s: auth info %v", target, p.AuthInfo)
			}
		}
		if _, err := NewClient(a, "a b"); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a bad target: %v", err)
		}
	})
}

func TestNewClient_HeldUntilKnown(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.stranger()
		o.serve(b, "x.A")
		time.AfterFunc(2*time.Second, func() {
			o.link(a, b)
			_, _ = o.net.ConnectPeers(a.ID(), b.ID())
		})
		errs := make(chan error)
		for _, target := range []string{b.ID().String(), "x.A"} {
			cc := o.client(a, target)
			go func() {
				start := time.Now()
				_, err := askWho(t.Context(), cc, "x.A")
				if d := time.Since(start); err == nil && (d < 2*time.Second || d > 3*time.Second) {
					t.Errorf("held for %v", d)
				}
				errs <- err
			}()
		}
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestNewClient_NoInstance(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.stranger()
		for _, target := range []string{b.ID().String(), "x.A"} {
			cc := o.client(a, target)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := askWho(ctx, cc, "x.A")
			wantReason(t, err, ReasonNoInstance)
			cancel()
			start := time.Now()
			_, err = askWho(t.Context(), cc, "x.A")
			wantReason(t, err, ReasonNoInstance)
			if d := time.Since(start); d != 4*time.Second || status.Code(err) != codes.Unavailable {
				t.Errorf("%s: after %v: %v", target, d, err)
			}
			_, err = cc.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/x.A/Chat")
			wantReason(t, err, ReasonNoInstance)
		}
		// Late, but it comes.
		cc := o.client(a, "x.A")
		_, err := askWho(t.Context(), cc, "x.A")
		wantReason(t, err, ReasonNoInstance)
		o.serve(b, "x.A")
		o.link(a, b)
		o.connect(a, b)
		if _, err := askWho(t.Context(), cc, "x.A", grpc.WaitForReady(true)); err != nil {
			t.Error(err)
		}
	})
}

func TestNewClient_AllInstancesInTurn(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a := o.host()
		for range 3 {
			b := o.host()
			o.serve(b, "x.A")
			o.connect(a, b)
		}
		cc := o.client(a, "x.A")
		count := map[peer.ID]int{}
		for range 30 {
			id, err := askWho(t.Context(), cc, "x.A")
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			count[id]++
		}
		if len(count) != 3 {
			t.Errorf("calls: %v", count)
		}
		late := o.host()
		o.serve(late, "x.A")
		o.connect(a, late)
		for range 10 {
			id, err := askWho(t.Context(), cc, "x.A")
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			count[id]++
		}
		if count[late.ID()] == 0 {
			t.Error("an instance that came later got no call")
		}
	})
}

func TestNewClient_BackAtOnce(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		o.serve(b, "x.A")
		cc := o.client(a, b.ID().String())
		o.connect(a, b)
		if _, err := askWho(t.Context(), cc, "x.A"); err != nil {
			t.Fatal(err)
		}
		o.disconnect(a, b)
		if err := o.net.UnlinkPeers(a.ID(), b.ID()); err != nil {
			t.Fatal(err)
		}
		for range 40 {
			if _, err := askWho(t.Context(), cc, "x.A"); status.Code(err) != codes.Unavailable {
				t.Fatalf("called a peer that is gone: %v", err)
			}
			time.Sleep(time.Second)
		}
		o.link(a, b)
		o.connect(a, b)
		start := time.Now()
		if _, err := askWho(t.Context(), cc, "x.A", grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 100*time.Millisecond {
			t.Fatalf("back after %v", d)
		}
	})
}

func TestNewClient_NamesTheCauseOfAFailedDial(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.stranger()
		a.Peerstore().AddAddrs(b.ID(), b.Addrs(), time.Hour)
		_, err := askWho(t.Context(), o.client(a, b.ID().String()), "x.A")
		wantReason(t, err, ReasonNoRoute)
	})
}

func TestNewClient_OfAChannel(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a := o.host()
		s := o.serve(a, "x.A")
		ch := o.channel(a, ChannelConfig{Self: s, DiscoveryTimeout: time.Second})
		cc, err := ch.NewClient("x.A")
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		if err := ch.Close(); err != nil {
			t.Fatal(err)
		}
		if id, err := askWho(t.Context(), cc, "x.A"); err != nil || id != a.ID() {
			t.Errorf("to itself: %s, %v", id, err)
		}
		other, err := ch.NewClient("x.B")
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		start := time.Now()
		if _, err := askWho(t.Context(), other, "x.B"); ReasonOf(err) != ReasonNoInstance || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// Whoever looks after the connections sees what goes over those of a client, too.
func TestNewClient_IsInUse(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		o.serve(b, "x.A")
		o.connect(a, b)
		ch := o.channel(a, ChannelConfig{})
		cc, err := ch.NewClient(b.ID().String())
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		if ch.InUse(b.ID()) {
			t.Error("in use before there is a tunnel")
		}
		for _, c := range []grpc.ClientConnInterface{cc, ch.Peer(b.ID().String())} {
			if _, err := askWho(t.Context(), c, "x.A"); err != nil {
				t.Fatal(err)
			}
		}
		if ch.Drop(b.ID()); !ch.InUse(b.ID()) {
			t.Error("not in use with the client's tunnel")
		}
		_ = cc.Close()
		if synctest.Wait(); ch.InUse(b.ID()) {
			t.Error("in use after the last tunnel")
		}
	})
}

// A client's own options win, except for those that would break it.
func TestNewClient_Options(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		w := &who{id: b.ID()}
		fails := 0
		w.fail = func(context.Context) error {
			if fails++; fails < 3 {
				return status.Error(codes.Unavailable, "broken")
			}
			return nil
		}
		o.serveAs(b, w, "x.A")
		o.connect(a, b)
		cc := o.client(a, b.ID().String(), grpc.WithDefaultServiceConfig(retryTwice), grpc.WithAuthority("evil"))
		if _, err := askWho(t.Context(), cc, "x.A"); err != nil {
			t.Error(err)
		}
	})
}
