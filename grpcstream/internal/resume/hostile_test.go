package resume

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/internal/virtual"
)

// raw begins an RPC with the metadata given.
func (l *link) raw(value string) grpc.ClientStream {
	l.t.Helper()
	rpc, err := l.dial(metadata.AppendToOutgoingContext(context.Background(), metadataKey, value))
	if err != nil {
		l.t.Fatal(err)
	}
	return rpc
}

func attachment(t *testing.T, a *Attach) string {
	t.Helper()
	if a.Stream == nil {
		a.Stream = make([]byte, 16)
	}
	b, err := proto.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// ends returns how an RPC ends.
func ends(rpc grpc.ClientStream) codes.Code {
	for {
		switch err := rpc.RecvMsg(new(Frame)); {
		case errors.Is(err, io.EOF):
			return codes.OK
		case err != nil:
			return status.Code(err)
		}
	}
}

func messageOf(size int) *Frame {
	b, _ := proto.Marshal(wrapperspb.Bytes(make([]byte, size)))
	return &Frame{Kind: &Frame_Message{Message: b}}
}

// A caller that does not keep to the protocol is told, and costs no more than its stream.
func TestSessions_Frames(t *testing.T) {
	many := make([]*Frame, 0, 100)
	for range cap(many) {
		many = append(many, messageOf(window/20))
	}
	halfClose := &Frame{Kind: &Frame_HalfClose{HalfClose: true}}
	for name, frames := range map[string][]*Frame{
		"more than the window":          many,
		"a second half":                 {halfClose, halfClose},
		"a message after the last":      {halfClose, messageOf(1)},
		"a header":                      {{Kind: &Frame_Header{Header: new(Fields)}}},
		"an end":                        {{Kind: &Frame_End{End: new(End)}}},
		"taking what was not sent":      {{Kind: &Frame_Taken{Taken: 1}}},
		"no half close":                 {{Kind: &Frame_HalfClose{}}},
		"nothing":                       {{}},
		"a lot of what is not numbered": {{Kind: &Frame_Taken{}}, {Kind: &Frame_Taken{}}, {}},
	} {
		t.Run(name, func(t *testing.T) {
			virtual.Test(t, func(t *testing.T) {
				l := newLink(t, untilEnd(make(chan error, 1)))
				rpc := l.raw(attachment(t, &Attach{Attempt: 1}))
				for _, f := range frames {
					if rpc.SendMsg(f) != nil {
						break
					}
				}
				if got := ends(rpc); got != codes.InvalidArgument {
					t.Errorf("the RPC ended with %v", got)
				}
				l.rpcs.Wait()
				if n := l.kept()[0].inSize; n > window+window/20+frameOverhead {
					t.Errorf("%d bytes are kept", n)
				}
				l.sessions.Close()
				synctest.Wait()
			})
		})
	}
}

func TestSessions_Attach(t *testing.T) {
	for name, c := range map[string]struct {
		value string
		want  codes.Code
	}{
		"garbage":            {"\xff\xff\xff", codes.InvalidArgument},
		"nothing":            {"", codes.InvalidArgument},
		"a short name":       {attachment(t, &Attach{Stream: []byte{1}, Attempt: 2}), codes.InvalidArgument},
		"an old attempt":     {attachment(t, &Attach{Attempt: 1}), codes.Unavailable},
		"frames never sent":  {attachment(t, &Attach{Attempt: 2, Received: 1}), codes.InvalidArgument},
		"a stream not known": {attachment(t, &Attach{Stream: []byte("0123456789abcdef"), Attempt: 2, Known: true}), codes.Aborted},
	} {
		t.Run(name, func(t *testing.T) {
			virtual.Test(t, func(t *testing.T) {
				l := newLink(t, untilEnd(make(chan error, 1)))
				first := l.raw(attachment(t, &Attach{Attempt: 1}))
				synctest.Wait()
				if got := ends(l.raw(c.value)); got != c.want {
					t.Errorf("the RPC ended with %v, want %v", got, c.want)
				}
				if first.Context().Err() != nil {
					t.Error("that has ended the stream's own RPC")
				}
				l.sessions.Close()
				l.cut(nil)
				l.rpcs.Wait()
			})
		})
	}
}

// A first RPC that cannot be begins nothing: no handler would ever end.
func TestSessions_NothingBegun(t *testing.T) {
	for name, a := range map[string]*Attach{"no attempt": {}, "frames never sent": {Attempt: 1, Received: 1}} {
		t.Run(name, func(t *testing.T) {
			virtual.Test(t, func(t *testing.T) {
				l := newLink(t, func(grpc.ServerStream) error { t.Error("the handler was called"); return nil })
				if got := ends(l.raw(attachment(t, a))); got == codes.OK {
					t.Error("the RPC was taken")
				}
				l.rpcs.Wait()
				if n := len(l.kept()); n > 0 || len(l.sessions.perCaller) > 0 {
					t.Errorf("%d streams are kept", n)
				}
			})
		})
	}
}

// A stream belongs to one caller and one method.
func TestSessions_NobodyElse(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		begun := 0
		l := newLink(t, func(ss grpc.ServerStream) error { begun++; <-ss.Context().Done(); return nil })
		l.raw(attachment(t, &Attach{Attempt: 1}))
		synctest.Wait()
		l.method = "/x.A/Other"
		if got := ends(l.raw(attachment(t, &Attach{Attempt: 2, Known: true}))); got != codes.InvalidArgument {
			t.Errorf("another method: %v", got)
		}
		l.caller, l.method = "somebody else", "/x.A/Chat"
		if got := ends(l.raw(attachment(t, &Attach{Attempt: 2, Known: true}))); got != codes.Aborted {
			t.Errorf("another caller: %v", got)
		}
		l.sessions.Close()
		l.cut(nil)
		l.rpcs.Wait()
		if begun != 1 {
			t.Errorf("the handler was called %d times", begun)
		}
	})
}

func TestSessions_Room(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		l := newLink(t, untilEnd(make(chan error, 2*MaxPerCaller)))
		id := func(i int) []byte { return append(make([]byte, 14), byte(i>>8), byte(i)) }
		for i := range MaxPerCaller {
			l.raw(attachment(t, &Attach{Stream: id(i), Attempt: 1}))
		}
		synctest.Wait()
		l.cut(nil) // those that nothing carries count, too
		synctest.Wait()
		if got := ends(l.raw(attachment(t, &Attach{Stream: id(MaxPerCaller), Attempt: 1}))); got != codes.ResourceExhausted {
			t.Errorf("one more: %v", got)
		}
		l.caller = "somebody else"
		other := l.raw(attachment(t, &Attach{Stream: id(0), Attempt: 1}))
		synctest.Wait()
		if other.Context().Err() != nil {
			t.Error("nobody else gets room")
		}
		l.sessions.Close()
		l.cut(nil)
		l.rpcs.Wait()
		l.sessions.Wait(1)
	})
}

// FuzzFlow feeds both ends with frames that nobody keeps in order.
func FuzzFlow(f *testing.F) {
	for _, frames := range [][]*Frame{
		{messageOf(1), {Kind: &Frame_HalfClose{HalfClose: true}}, {Kind: &Frame_Taken{Taken: 1}}},
		{{Kind: &Frame_Header{Header: fieldsOf(metadata.Pairs("k", "v"))}}, messageOf(10), endOf(io.EOF, metadata.Pairs("k", "v"))},
	} {
		var all []byte
		for _, fr := range frames {
			b, _ := proto.Marshal(fr)
			all = append(append(all, byte(len(b))), b...)
		}
		f.Add(all, uint64(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, received uint64) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		caller := &stream{Caller: Caller{Desc: &grpc.StreamDesc{ServerStreams: true}}, ctx: ctx}
		server := &session{ctx: ctx, cancel: cancel}
		_, _ = caller.attach(1, received)
		_, _ = server.attach(1, received)
		_ = server.SendMsg(wrapperspb.Bytes(nil))
		for len(data) > 0 {
			n := min(int(data[0]), len(data)-1)
			fr := new(Frame)
			if proto.Unmarshal(data[1:1+n], fr) == nil {
				for _, end := range []struct {
					f       *flow
					control func(*Frame) error
				}{{&caller.flow, caller.control}, {&server.flow, server.control}} {
					if end.control(fr) == nil {
						_ = end.f.accept(1, fr)
					}
				}
			}
			data = data[1+n:]
			_ = caller.RecvMsg(new(wrapperspb.BytesValue))
			_ = server.RecvMsg(new(wrapperspb.BytesValue))
			if size := caller.inSize + server.inSize; size > 2*(window+1<<16) {
				t.Fatalf("%d bytes are kept", size)
			}
		}
		_, _ = caller.Header()
		_ = caller.Trailer()
	})
}
