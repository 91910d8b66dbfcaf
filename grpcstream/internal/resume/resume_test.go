package resume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/internal/virtual"
)

// echo sends back what it gets.
func echo(ss grpc.ServerStream) error {
	for {
		m := new(wrapperspb.BytesValue)
		if err := ss.RecvMsg(m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := ss.SendMsg(m); err != nil {
			return err
		}
	}
}

// Whatever breaks and whenever, each message arrives once and in order, and neither end keeps more than its windows.
func TestStream_BrokenAnywhere(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			virtual.Test(t, func(t *testing.T) { brokenAnywhere(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func brokenAnywhere(t *testing.T, rnd *rand.Rand) {
	t.Helper()
	var sizes, breaks []int
	for range 1 + rnd.IntN(60) {
		sizes = append(sizes, []int{0, 1, 100, 5000, tellFrom, window, 3 * window}[rnd.IntN(7)])
	}
	for range rnd.IntN(30) {
		breaks = append(breaks, rnd.IntN(40))
	}
	slow := []int{0, 1, 30}[rnd.IntN(3)]
	nap := func() {
		if slow > 0 {
			time.Sleep(time.Duration(rnd.IntN(slow)) * time.Millisecond)
		}
	}
	l := newLink(t, echo)
	cs, _, wait := l.stream(t.Context())
	s, _ := cs.(*stream)
	largest := window + 3*window + 4*frameOverhead
	bounded := func(f *flow) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.inSize > largest || f.outSize > largest {
			t.Fatalf("%d bytes wait to be read, %d to be taken", f.inSize, f.outSize)
		}
	}
	broken := make(chan struct{})
	go func() {
		defer close(broken)
		for _, after := range breaks {
			time.Sleep(time.Duration(after) * time.Millisecond)
			l.cut(nil)
		}
	}()
	go func() {
		for i, size := range sizes {
			b := make([]byte, size+2)
			b[0], b[1] = byte(i), byte(i>>8)
			if err := cs.SendMsg(wrapperspb.Bytes(b)); err != nil {
				t.Errorf("send %d: %v", i, err)
			}
		}
		if err := cs.CloseSend(); err != nil {
			t.Error(err)
		}
	}()
	for i, size := range sizes {
		nap()
		bounded(&s.flow)
		for _, x := range l.kept() {
			bounded(&x.flow)
		}
		m := new(wrapperspb.BytesValue)
		if err := cs.RecvMsg(m); err != nil {
			t.Fatalf("receive %d: %v", i, err)
		}
		if b := m.GetValue(); len(b) != size+2 || int(b[0])+int(b[1])<<8 != i {
			t.Fatalf("message %d is another one, of %d bytes", i, len(b))
		}
	}
	for range 2 {
		if err := cs.RecvMsg(new(wrapperspb.BytesValue)); !errors.Is(err, io.EOF) {
			t.Fatalf("the end is %v", err)
		}
	}
	<-broken
	wait()
	l.rpcs.Wait()
	time.Sleep(Within + slack + time.Second)
	synctest.Wait()
	if n := len(l.kept()); n > 0 || len(l.sessions.perCaller) > 0 {
		t.Fatalf("%d streams are kept", n)
	}
	if !l.sessions.Wait(time.Second) {
		t.Fatal("a handler runs")
	}
}

// A stream that nothing carries ends, at the caller and a little later at the server.
func TestStream_CutOffForTooLong(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		handled := make(chan error, 1)
		l := newLink(t, func(ss grpc.ServerStream) error {
			err := ss.RecvMsg(new(wrapperspb.BytesValue))
			handled <- err
			return err
		})
		cs, _, wait := l.stream(t.Context())
		synctest.Wait()
		l.cut(status.Error(codes.Unavailable, "no way"))
		began := time.Now()
		err := cs.RecvMsg(new(wrapperspb.BytesValue))
		if _, ok := err.(lost); !ok || status.Code(err) != codes.Unavailable { //nolint:errorlint // it is that very one
			t.Errorf("the stream ended with %v", err)
		}
		if took := time.Since(began); took < Within || took > Within+longestPause {
			t.Errorf("after %v", took)
		}
		if err := cs.SendMsg(new(wrapperspb.BytesValue)); !errors.Is(err, io.EOF) {
			t.Errorf("sending returns %v", err)
		}
		wait()
		if err := <-handled; status.Code(err) != codes.Canceled {
			t.Errorf("the handler got %v", err)
		}
		if took := time.Since(began); took > Within+slack {
			t.Errorf("the handler went on for %v", took)
		}
		l.rpcs.Wait()
	})
}

// untilEnd is a handler that waits for its context to end, and passes on what it gets then.
func untilEnd(handled chan error) func(grpc.ServerStream) error {
	return func(ss grpc.ServerStream) error {
		<-ss.Context().Done()
		handled <- ss.RecvMsg(new(wrapperspb.BytesValue))
		return ss.Context().Err()
	}
}

func TestStream_CallerCancels(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		handled := make(chan error, 1)
		l := newLink(t, untilEnd(handled))
		ctx, cancel := context.WithCancel(t.Context())
		cs, _, ended := l.stream(ctx)
		synctest.Wait()
		began := time.Now()
		cancel()
		if err := cs.RecvMsg(new(wrapperspb.BytesValue)); status.Code(err) != codes.Canceled {
			t.Errorf("got %v", err)
		}
		if err := <-handled; status.Code(err) != codes.Canceled {
			t.Errorf("the handler got %v", err)
		}
		ended()
		l.rpcs.Wait()
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %v", took)
		}
		synctest.Wait() // for the end of the handler
		if n := len(l.kept()); n > 0 {
			t.Errorf("%d streams are kept", n)
		}
	})
}

func TestStream_Deadline(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		handled := make(chan error, 1)
		l := newLink(t, untilEnd(handled))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		cs, _, ended := l.stream(ctx)
		l.cut(nil)
		if err := cs.RecvMsg(new(wrapperspb.BytesValue)); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		if err := <-handled; status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("the handler got %v", err)
		}
		ended()
		l.rpcs.Wait()
	})
}

func TestStream_ChannelCloses(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		l := newLink(t, echo)
		cs, closed, ended := l.stream(t.Context())
		close(closed)
		l.cut(status.Error(codes.Canceled, "closing"))
		if err := cs.RecvMsg(new(wrapperspb.BytesValue)); err == nil {
			t.Error("it goes on")
		}
		ended()
		l.sessions.Close()
		l.rpcs.Wait()
		if !l.sessions.Wait(time.Second) {
			t.Error("a handler runs")
		}
	})
}

func TestStream_ServerCloses(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		handled := make(chan error, 1)
		l := newLink(t, untilEnd(handled))
		carried, _, ended := l.stream(t.Context())
		synctest.Wait()
		l.sessions.Close()
		synctest.Wait()
		if len(handled) > 0 {
			t.Error("a stream that is carried was ended")
		}
		l.cut(nil)
		if err := <-handled; status.Code(err) != codes.Canceled {
			t.Errorf("the handler got %v", err)
		}
		if err := carried.RecvMsg(new(wrapperspb.BytesValue)); status.Code(err) != codes.Aborted {
			t.Errorf("got %v", err)
		}
		ended()
		if _, err := l.try(t.Context()); status.Code(err) != codes.Unavailable {
			t.Errorf("a stream begins: %v", err)
		}
		l.rpcs.Wait()
	})
}

// One stream lives at one server only: when that has forgotten it, it is not begun again.
func TestStream_ServerIsStartedAnew(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		l := newLink(t, echo)
		cs, _, wait := l.stream(t.Context())
		if err := errors.Join(cs.SendMsg(wrapperspb.Bytes(nil)), cs.RecvMsg(new(wrapperspb.BytesValue))); err != nil {
			t.Fatal(err)
		}
		old := l.sessions
		l.sessions = NewSessions(testErrors())
		l.cut(nil)
		if err := cs.RecvMsg(new(wrapperspb.BytesValue)); status.Code(err) != codes.Aborted {
			t.Errorf("got %v", err)
		}
		wait()
		l.rpcs.Wait()
		old.Close()
	})
}

// A caller whose first RPC broke before the server answered begins once all the same.
func TestStream_BegunOnce(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		begun := 0
		l := newLink(t, func(ss grpc.ServerStream) error { begun++; return echo(ss) })
		l.silent = 3
		cs, _, wait := l.stream(t.Context())
		if err := errors.Join(cs.SendMsg(wrapperspb.Bytes(nil)), cs.CloseSend(), cs.RecvMsg(new(wrapperspb.BytesValue))); err != nil {
			t.Fatal(err)
		}
		wait()
		l.rpcs.Wait()
		if begun != 1 {
			t.Errorf("the handler was called %d times", begun)
		}
	})
}

// gRPC may make an RPC again by itself when its answer was lost, which is no end of the stream.
func TestStream_RetriedByGRPC(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		begun, tries := 0, 0
		l := newLink(t, func(ss grpc.ServerStream) error { begun++; return echo(ss) })
		l.silent = 1
		cs, run, err := NewStream(t.Context(), Caller{
			Desc: Desc(), Closed: make(chan struct{}), Errors: testErrors(),
			Open: func(ctx context.Context) (grpc.ClientStream, error) {
				if tries++; tries == 1 {
					if _, err := l.dial(ctx); err != nil {
						return nil, err
					}
					synctest.Wait()
				}
				return l.dial(ctx)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		go run()
		if err := errors.Join(cs.SendMsg(wrapperspb.Bytes(nil)), cs.CloseSend(), cs.RecvMsg(new(wrapperspb.BytesValue))); err != nil {
			t.Fatal(err)
		}
		if err := cs.RecvMsg(new(wrapperspb.BytesValue)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		l.rpcs.Wait()
		if begun != 1 || tries != 2 {
			t.Errorf("the handler was called %d times, in %d tries", begun, tries)
		}
	})
}

// A handler that is not read waits, and so does a caller.
func TestStream_BackPressure(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		sent := 0
		l := newLink(t, func(ss grpc.ServerStream) error {
			for ; sent < 1000; sent++ {
				if err := ss.SendMsg(wrapperspb.Bytes(make([]byte, 1000))); err != nil {
					return err
				}
			}
			return nil
		})
		cs, _, wait := l.stream(t.Context())
		synctest.Wait()
		for range 10 { // broken RPCs make no room
			l.cut(nil)
			time.Sleep(time.Second)
		}
		if most := window / 1000; sent == 0 || sent > most {
			t.Errorf("%d messages were sent, at most %d fit", sent, most)
		}
		for range 1000 {
			if err := cs.RecvMsg(new(wrapperspb.BytesValue)); err != nil {
				t.Fatal(err)
			}
		}
		if err := cs.RecvMsg(new(wrapperspb.BytesValue)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		wait()
		l.rpcs.Wait()
	})
}
