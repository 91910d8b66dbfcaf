package grpcstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const retryTwice = `{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":3,"initialBackoff":"0.01s","maxBackoff":"0.01s","backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}}]}`

func TestChannel_RetriesGoToPeersNotYetTried(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a := o.host()
		ch := o.channel(a, ChannelConfig{ServiceConfig: retryTwice})
		tried := make(chan peer.ID, 1000)
		var good peer.ID
		for i := range 3 {
			b := o.host()
			w := &who{id: b.ID()}
			w.fail = func(context.Context) error {
				tried <- b.ID()
				if i < 2 {
					return status.Error(codes.Unavailable, "broken")
				}
				return nil
			}
			if i == 2 {
				good = b.ID()
			}
			o.serveAs(b, w, "x.A")
			o.connect(a, b)
		}
		for n := range 60 {
			id, err := askWho(t.Context(), ch, "x.A")
			if err != nil || id != good {
				t.Fatalf("call %d: %s, %v", n, id, err)
			}
			seen := map[peer.ID]bool{}
			for range len(tried) {
				if id := <-tried; seen[id] {
					t.Fatalf("call %d went to %s twice", n, id)
				} else {
					seen[id] = true
				}
			}
		}
	})
}

func TestChannel_HeldAgainAfterTheLastInstanceLeft(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		o.serve(b, "x.A")
		ch := o.channel(a, ChannelConfig{})
		o.connect(a, b)
		if _, err := askWho(t.Context(), ch, "x.A"); err != nil {
			t.Fatal(err)
		}
		o.disconnect(a, b)
		if n := len(ch.Instances("x.A")); n != 0 {
			t.Fatalf("%d instances after the last has left", n)
		}
		_, err := askWho(t.Context(), ch, "x.A")
		wantReason(t, err, ReasonNoInstance)
		time.AfterFunc(time.Second, func() { _, _ = o.net.ConnectPeers(a.ID(), b.ID()) })
		start := time.Now()
		if _, err := askWho(t.Context(), ch, "x.A"); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < time.Second || d > 1100*time.Millisecond {
			t.Fatalf("held for %v", d)
		}
	})
}

// The peer is gone for so long that the pause before the next dial is at its longest, and called at once when it is
// back.
func TestChannel_BackAtOnce(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		o.serve(b, "x.A")
		ch := o.channel(a, ChannelConfig{})
		o.connect(a, b)
		cc := ch.Peer(b.ID().String())
		if _, err := askWho(t.Context(), cc, "x.A"); err != nil {
			t.Fatal(err)
		}
		o.disconnect(a, b)
		if err := o.net.UnlinkPeers(a.ID(), b.ID()); err != nil {
			t.Fatal(err)
		}
		a.Peerstore().AddAddrs(b.ID(), b.Addrs(), time.Hour)
		for range 30 {
			if _, err := askWho(t.Context(), cc, "x.A"); err == nil {
				t.Fatal("called a peer that is gone")
			} else {
				wantReason(t, err, ReasonNoRoute)
			}
			time.Sleep(time.Second)
		}
		o.link(a, b)
		o.connect(a, b)
		start := time.Now()
		if _, err := askWho(t.Context(), cc, "x.A"); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 100*time.Millisecond {
			t.Fatalf("back after %v", d)
		}
	})
}

func TestChannel_ProtectsWhatIsInUse(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		o.serve(b, "x.A")
		protected := &countingManager{ConnManager: a.ConnManager()}
		ch := o.channel(managed{a, protected}, ChannelConfig{IdleTimeout: time.Minute})
		o.connect(a, b)
		if _, err := askWho(t.Context(), ch, "x.A"); err != nil {
			t.Fatal(err)
		}
		if protected.n() != 1 || !ch.InUse(b.ID()) {
			t.Fatalf("protected %d times, in use: %v", protected.n(), ch.InUse(b.ID()))
		}
		for range 10 { // used: kept
			time.Sleep(30 * time.Second)
			if _, err := askWho(t.Context(), ch, "x.A"); err != nil {
				t.Fatal(err)
			}
		}
		s, err := ch.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/x.A/Chat")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute) // a stream that says nothing is in use, too
		if protected.n() != 1 {
			t.Fatal("not protected under an open stream")
		}
		if err := errors.Join(s.SendMsg(wrapperspb.String("x")), s.RecvMsg(new(wrapperspb.StringValue)), s.CloseSend()); err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(new(wrapperspb.StringValue)); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if protected.n() != 0 || ch.InUse(b.ID()) {
			t.Fatalf("idle: protected %d times, in use: %v", protected.n(), ch.InUse(b.ID()))
		}
		if len(b.Network().Conns()) != 1 || len(b.Network().Conns()[0].GetStreams()) != 0 {
			t.Fatal("the tunnel is still there")
		}
		if _, err := askWho(t.Context(), ch, "x.A"); err != nil {
			t.Fatalf("after idleness: %v", err)
		}
		if err := ch.Close(); err != nil {
			t.Fatal(err)
		}
		if protected.n() != 0 {
			t.Fatal("protected after Close")
		}
	})
}

func TestChannel_ToItself(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		s := NewServer(ServerConfig{Logger: muted()})
		s.RegisterService(whoDesc("x.A"), &who{id: a.ID()})
		ch := o.channel(a, ChannelConfig{Self: s})
		synctest.Wait()
		if n := len(ch.Instances("x.A")); n != 0 {
			t.Fatalf("%d instances before the start", n)
		}
		if err := s.Start(a); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Shutdown(t.Context()) }()
		synctest.Wait()
		o.serve(b, "x.A")
		o.connect(a, b)
		if got := ch.Instances("x.A"); len(got) != 2 || !slices.ContainsFunc(got, func(i Instance) bool { return i.Peer == a.ID() }) {
			t.Fatalf("instances %v", got)
		}
		if id, err := askWho(t.Context(), ch.Peer(a.ID().String()), "x.A"); err != nil || id != a.ID() {
			t.Fatalf("by its own ID: %s, %v", id, err)
		}
		seen := map[peer.ID]int{}
		for range 20 {
			id, err := askWho(t.Context(), ch, "x.A")
			if err != nil {
				t.Fatal(err)
			}
			seen[id]++
			synctest.Wait()
		}
		if seen[a.ID()] < 8 || seen[b.ID()] < 8 {
			t.Fatalf("calls: %v", seen)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
		synctest.Wait()
		if got := ch.Instances("x.A"); len(got) != 1 || got[0].Peer != b.ID() {
			t.Fatalf("instances after its own shutdown %v", got)
		}
	})
}

func TestChannel_TwoHundredServices(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		var names []string
		for i := range 200 {
			names = append(names, fmt.Sprintf("x.Service%03d", i))
		}
		srv := o.serve(b, names...)
		reads := 0
		ch := o.channel(a, ChannelConfig{Catalog: func(ctx context.Context, cc grpc.ClientConnInterface) ([]string, error) {
			reads++
			if reads == 1 {
				return nil, errors.New("not just now")
			}
			if _, err := askWho(ctx, cc, names[0]); err != nil { // it calls the peer in question
				return nil, err
			}
			return append(srv.Services(), "p2p.lie", "bad name\x1b"), nil
		}})
		o.connect(a, b)
		for _, name := range names {
			if id, err := askWho(t.Context(), ch, name); err != nil || id != b.ID() {
				t.Fatalf("%s: %s, %v", name, id, err)
			}
		}
		if got := ch.Services(b.ID()); !slices.Equal(got, names) {
			t.Fatalf("%d services: %v", len(got), got)
		}
		if reads != 2 {
			t.Fatalf("the catalog was read %d times", reads)
		}
	})
}

func TestChannel_Watch(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		o.serve(b, "x.A", "x.B")
		ch := o.channel(a, ChannelConfig{})
		events := make(chan ServiceEvent, 10)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e := range ch.Watch(ctx) {
				events <- e
			}
		}()
		synctest.Wait()
		o.connect(a, b)
		o.disconnect(a, b)
		for _, want := range []ServiceEvent{{b.ID(), "x.A", false}, {b.ID(), "x.B", false}, {b.ID(), "x.A", true}, {b.ID(), "x.B", true}} {
			if got := <-events; got != want {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
		cancel()
		<-done
		go func() {
			for range ch.Watch(context.WithoutCancel(ctx)) {
			}
			close(events)
		}()
		_ = ch.Close() // ends it
		<-events
	})
}
