package grpcstream

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestChannel_Repeatable(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a := o.host()
		ch := o.channel(a, ChannelConfig{})
		var mu sync.Mutex
		tries, refuse := 0, 1
		flaky := func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			if tries++; tries <= refuse {
				return status.Error(codes.Unavailable, "not now")
			}
			return nil
		}
		for range 3 {
			h := o.host()
			o.serveAs(h, &who{id: h.ID(), fail: flaky}, "x.A")
			o.connect(a, h)
		}
		refuse = 0
		warm(t, ch)
		for _, c := range []struct {
			refuse, want int
			fails        bool
			opts         []grpc.CallOption
		}{
			{refuse: 1, want: 1, fails: true},
			{refuse: 2, want: 3, opts: []grpc.CallOption{Repeatable()}},
			{refuse: 9, want: 3, fails: true, opts: []grpc.CallOption{Repeatable()}},
		} {
			tries, refuse = 0, c.refuse
			if _, err := askWho(t.Context(), ch, "x.A", c.opts...); (err != nil) != c.fails || tries != c.want {
				t.Errorf("%d failures: %d attempts, want %d: %v", c.refuse, tries, c.want, err)
			}
		}
		// What is an answer is not repeated.
		tries = 0
		err := ch.Invoke(t.Context(), "/x.A/None", nothing(), nothing(), Repeatable())
		if status.Code(err) != codes.Unimplemented {
			t.Error(err)
		}
	})
}

// downDesc is a service whose stream gives two answers to one request, or fails when the who says so: before the first
// of them, or with fail's second error after it.
func downDesc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "x.Down", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Down", ServerStreams: true, Handler: func(srv any, s grpc.ServerStream) error {
			w, _ := srv.(*who)
			m := nothing()
			if err := s.RecvMsg(m); err != nil {
				return err
			}
			if err := w.fail(s.Context()); err != nil {
				return err
			}
			if err := s.SendMsg(wrapperspb.String(w.id.String() + m.GetValue())); err != nil {
				return err
			}
			return w.fail(s.Context())
		}}},
	}
}

func TestChannel_RepeatableStream(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a := o.host()
		ch := o.channel(a, ChannelConfig{})
		var mu sync.Mutex
		asked := 0
		refuse := map[int]bool{}
		flaky := func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			if asked++; refuse[asked] {
				return status.Error(codes.Unavailable, "not now")
			}
			return nil
		}
		for range 3 {
			h := o.host()
			s := NewServer(ServerConfig{Logger: muted()})
			s.RegisterService(downDesc(), &who{id: h.ID(), fail: flaky})
			if err := s.Start(h); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Shutdown(t.Context()) }()
			o.connect(a, h)
		}
		down := func(fail ...int) (int, error) {
			asked, refuse = 0, map[int]bool{}
			for _, i := range fail {
				refuse[i] = true
			}
			s, err := ch.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/x.Down/Down", Repeatable())
			if err != nil {
				return 0, err
			}
			if err := errors.Join(s.SendMsg(wrapperspb.String("!")), s.CloseSend()); err != nil {
				return 0, err
			}
			for n := 0; ; n++ {
				if err := s.RecvMsg(nothing()); errors.Is(err, io.EOF) {
					return n, nil
				} else if err != nil {
					return n, err
				}
			}
		}
		for range 12 {
			if n, err := down(); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			synctest.Wait()
		}
		if n, err := down(1, 2); n != 1 || err != nil || asked != 4 {
			t.Errorf("failures before the first answer: %d answers, %d asked, %v", n, asked, err)
		}
		if n, err := down(2); n != 1 || status.Code(err) != codes.Unavailable || asked != 2 {
			t.Errorf("a failure after the first answer: %d answers, %d asked, %v", n, asked, err)
		}
		if n, err := down(1, 2, 3, 4); n != 0 || status.Code(err) != codes.Unavailable || asked != 3 {
			t.Errorf("failures all the time: %d answers, %d asked, %v", n, asked, err)
		}
	})
}
