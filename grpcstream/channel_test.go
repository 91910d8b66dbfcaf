package grpcstream

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestChannel_PeerAndService(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		o.serve(b, "x.A", "x.B")
		ch := o.channel(a, ChannelConfig{})
		o.connect(a, b)
		for _, service := range []string{"x.A", "x.B"} {
			if id, err := askWho(t.Context(), ch, service); err != nil || id != b.ID() {
				t.Fatalf("by service %s: %s, %v", service, id, err)
			}
			if id, err := askWho(t.Context(), ch.Peer(b.ID().String()), service); err != nil || id != b.ID() {
				t.Fatalf("by peer: %s, %v", id, err)
			}
		}
		if got := ch.Instances("x.A"); len(got) != 1 || got[0].Peer != b.ID() {
			t.Fatalf("instances: %v", got)
		}
		if !ch.InUse(b.ID()) {
			t.Fatal("not in use after a call")
		}
	})
}

func TestChannel_FirstCallBeforeServerIsKnown(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		ch := o.channel(a, ChannelConfig{})
		go func() {
			time.Sleep(time.Second)
			o.serve(b, "x.A")
			_, _ = o.net.ConnectPeers(a.ID(), b.ID())
		}()
		start := time.Now()
		id, err := askWho(t.Context(), ch, "x.A")
		if err != nil || id != b.ID() {
			t.Fatalf("%s, %v", id, err)
		}
		if d := time.Since(start); d < time.Second || d > 1100*time.Millisecond {
			t.Fatalf("held for %v", d)
		}
	})
}

func TestChannel_NoInstance(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		ch := o.channel(o.host(), ChannelConfig{})
		start := time.Now()
		_, err := askWho(t.Context(), ch, "x.A")
		wantReason(t, err, ReasonNoInstance)
		if d := time.Since(start); d != 5*time.Second {
			t.Fatalf("held for %v", d)
		}
		if status.Code(err) != codes.Unavailable {
			t.Fatalf("%v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = askWho(ctx, ch, "x.A")
		wantReason(t, err, ReasonNoInstance)
	})
}

func TestChannel_UnknownPeerIsWaitedFor(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.stranger()
		o.serve(b, "x.A")
		ch := o.channel(a, ChannelConfig{})
		go func() {
			time.Sleep(2 * time.Second)
			o.link(a, b)
			_, _ = o.net.ConnectPeers(a.ID(), b.ID())
		}()
		start := time.Now()
		if id, err := askWho(t.Context(), ch.Peer(b.ID().String()), "x.A"); err != nil || id != b.ID() {
			t.Fatalf("%s, %v", id, err)
		}
		if d := time.Since(start); d < 2*time.Second || d > 2300*time.Millisecond {
			t.Fatalf("held for %v", d)
		}
	})
}

func TestChannel_RoundRobin(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a := o.host()
		ch := o.channel(a, ChannelConfig{})
		count := map[peer.ID]int{}
		for range 4 {
			b := o.host()
			o.serve(b, "x.A")
			o.connect(a, b)
			count[b.ID()] = 0
		}
		for range 8 { // all get dialed
			if _, err := askWho(t.Context(), ch, "x.A"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for range 400 {
			id, err := askWho(t.Context(), ch, "x.A")
			if err != nil {
				t.Fatal(err)
			}
			count[id]++
		}
		for id, n := range count {
			if n != 100 {
				t.Errorf("%s: %d of 400 calls", id, n)
			}
		}
	})
}
