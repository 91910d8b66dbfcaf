package grpcstream

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/poll"
)

// onLoopback is acrossWAN with real sockets.
func onLoopback(t *testing.T, limits host.RelayConfig) *wan {
	t.Helper()
	open := func(cfg host.Config) corehost.Host {
		cfg.WAN, cfg.Listen = true, []string{"127.0.0.1:0"}
		h, err := host.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		return h
	}
	w := &wan{t: t, relay: open(host.Config{Relay: &limits}), a: open(host.Config{}), b: open(host.Config{})}
	t.Cleanup(w.close)
	w.start()
	return w
}

// Small calls, megabytes under way and a stream that must not break go from the relay to a direct path and back, again
// and again.
func TestMove_Loopback(t *testing.T) {
	w := onLoopback(t, host.RelayConfig{})
	cc := w.channel(ChannelConfig{MoveGrace: time.Second}).Peer(w.b.ID().String())
	l := newTraffic(t, cc, Repeatable())
	var large sync.WaitGroup
	for range 4 {
		large.Go(func() {
			for big := strings.Repeat("x", 1<<20); l.ctx.Err() == nil; {
				l.callWith(cc, big, Repeatable())
			}
		})
	}
	stream := chat(t, cc, Resumable())
	sent, received, stop := make(chan int, 1), make(chan int, 1), make(chan struct{})
	end := sync.OnceFunc(func() { close(stop) })
	defer end()
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				_ = stream.CloseSend()
				sent <- i
				return
			case <-time.After(5 * time.Millisecond):
				_ = stream.SendMsg(wrapperspb.String(fmt.Sprint(i)))
			}
		}
	}()
	go func() {
		n := 0
		for m := nothing(); stream.RecvMsg(m) == nil; n++ {
			if m.GetValue() != fmt.Sprint(n) && !t.Failed() {
				t.Errorf("message %d is %s", n, m.GetValue())
			}
		}
		received <- n
	}()
	taking := func(p PathKind) {
		poll.Until(t, 20*time.Second, func() string {
			if got := l.path(); got != p {
				return fmt.Sprintf("calls take path %q, not %q", got, p)
			}
			return ""
		})
	}
	for range 3 {
		taking(PathRelay)
		c := w.connect()
		taking(PathDirect)
		_ = c.Close()
	}
	taking(PathRelay)
	end()
	n := <-received
	if out := <-sent; out != n {
		t.Errorf("%d messages sent, %d received", out, n)
	}
	l.stop()
	large.Wait()
	l.close(5 * time.Second)
	t.Logf("%d messages over the stream", n)
}
