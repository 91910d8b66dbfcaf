package rootless_test

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
)

// echoDesc is a service with one bidirectional stream that sends back what it gets.
func echoDesc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "test.v1.EchoService",
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: "Talk", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, s grpc.ServerStream) error {
				for {
					var m wrapperspb.Int64Value
					if err := s.RecvMsg(&m); errors.Is(err, io.EOF) {
						return nil
					} else if err != nil {
						return err
					}
					if err := s.SendMsg(&m); err != nil {
						return err
					}
				}
			},
		}},
	}
}

// talk is what became of messages that were sent at a steady rate on one stream.
type talk struct {
	sent, back int64
	gap        time.Duration // the longest without an answer
	err        error
}

// steadyTalk sends 50 messages a second on a stream that goes on when its connection is lost, until stop is called. Each
// must come back, once and in order.
func (w *wan) steadyTalk(from, to *p2p.Node) (stop func() talk) {
	w.t.Helper()
	desc := echoDesc()
	s, err := from.Peer(to.ID().String()).NewStream(w.t.Context(), &desc.Streams[0], "/"+desc.ServiceName+"/Talk", p2p.Resumable())
	if err != nil {
		w.t.Fatal(err)
	}
	var t talk
	var sending, receiving sync.WaitGroup
	end := make(chan struct{})
	var failed error
	sending.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				failed = s.CloseSend()
				return
			case <-tick.C:
			}
			if failed = s.SendMsg(wrapperspb.Int64(t.sent)); failed != nil {
				return
			}
			t.sent++
		}
	})
	receiving.Go(func() {
		for last := time.Now(); ; t.back++ {
			var m wrapperspb.Int64Value
			if t.err = s.RecvMsg(&m); t.err != nil {
				if errors.Is(t.err, io.EOF) {
					t.err = nil
				}
				return
			}
			if m.GetValue() != t.back {
				t.err = fmt.Errorf("message %d came back as number %d", m.GetValue(), t.back)
				return
			}
			t.gap, last = max(t.gap, time.Since(last)), time.Now()
		}
	})
	ended := sync.OnceFunc(func() {
		close(end)
		sending.Wait()
		receiving.Wait()
	})
	w.t.Cleanup(ended) // when the test fails before
	return func() talk {
		ended()
		if t.err = errors.Join(t.err, failed); t.err == nil && t.back != t.sent {
			t.err = fmt.Errorf("%d messages were sent and %d came back", t.sent, t.back)
		}
		return t
	}
}
