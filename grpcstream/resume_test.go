package grpcstream

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/host"
)

func chat(t *testing.T, cc grpc.ClientConnInterface, opts ...grpc.CallOption) grpc.ClientStream {
	t.Helper()
	s, err := cc.NewStream(t.Context(), &grpc.StreamDesc{StreamName: "Chat", ServerStreams: true, ClientStreams: true}, "/x.A/Chat", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A stream goes on while the calls move to the direct path and back, and while connections are lost all the time.
func TestResumable_Echo(t *testing.T) {
	acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
		s := chat(t, w.channel(ChannelConfig{MoveGrace: 2 * time.Second}).Peer(w.b.ID().String()), Resumable())
		const messages = 2000
		sent := make(chan error, 1)
		go func() {
			for i := range messages {
				if err := s.SendMsg(wrapperspb.String(fmt.Sprint(i, strings.Repeat("x", rand.IntN(5000))))); err != nil {
					sent <- err
					return
				}
				if i%10 == 0 {
					time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
				}
			}
			sent <- s.CloseSend()
		}()
		breaks := 0
		closeAll := func() {
			for _, c := range w.a.Network().ConnsToPeer(w.b.ID()) {
				_ = c.Close()
			}
		}
		stop := make(chan struct{})
		broken := make(chan struct{})
		go func() {
			defer close(broken)
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(rand.IntN(3000)) * time.Millisecond):
				}
				switch breaks++; rand.IntN(4) {
				case 0, 1:
					w.connect()
				case 2: // b does not learn of it
					w.net.Cut(w.a, w.b)
					time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
					closeAll()
					w.net.Heal(w.a, w.b)
				default:
					closeAll()
				}
			}
		}()
		for i := range messages {
			m := nothing()
			if err := s.RecvMsg(m); err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
			if got, _, _ := strings.Cut(m.GetValue(), "x"); got != fmt.Sprint(i) {
				t.Fatalf("message %d is %s", i, got)
			}
		}
		close(stop)
		<-broken
		if err := s.RecvMsg(nothing()); !errors.Is(err, io.EOF) {
			t.Errorf("the end is %v", err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		t.Logf("%d messages, the connections were broken %d times", messages, breaks)
	})
}
