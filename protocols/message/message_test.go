package message

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/internal/virtual"
)

func TestSend_ReachesTheHandlerOfItsType(t *testing.T) {
	p := taking(t, func(r *Router) {
		Handle(r, func(_ context.Context, _ peer.ID, s *wrapperspb.StringValue) (*wrapperspb.Int64Value, error) {
			return wrapperspb.Int64(int64(len(s.GetValue()))), nil
		})
		Handle(r, echo[*structpb.Struct])
	})
	n, err := Send[*wrapperspb.Int64Value](t.Context(), p.to(), wrapperspb.String("seven!!"))
	if err != nil || n.GetValue() != 7 {
		t.Errorf("%v, %v", n, err)
	}
	want := &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewStringValue("b")}}
	got, err := Send[*structpb.Struct](t.Context(), p.to(), want)
	if diff := cmp.Diff(want, got, protocmp.Transform()); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestSend_ANilAnswerIsAnEmptyOne(t *testing.T) {
	p := taking(t, func(r *Router) {
		Handle(r, func(context.Context, peer.ID, *emptypb.Empty) (*wrapperspb.StringValue, error) { return nil, nil })
	})
	got, err := Send[*wrapperspb.StringValue](t.Context(), p.to(), &emptypb.Empty{})
	if err != nil || got == nil || got.GetValue() != "" {
		t.Errorf("%v, %v", got, err)
	}
}

// The sender is the peer that the connection proves, whatever the metadata says.
func TestSend_TheSenderIsProven(t *testing.T) {
	p := taking(t, func(r *Router) {
		Handle(r, func(_ context.Context, from peer.ID, _ *emptypb.Empty) (*wrapperspb.StringValue, error) {
			return wrapperspb.String(from.String()), nil
		})
	})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "sender", p.taker.ID().String(), "p2p-peer", p.taker.ID().String())
	got, err := Send[*wrapperspb.StringValue](ctx, p.to(), &emptypb.Empty{})
	if err != nil || got.GetValue() != p.sender.ID().String() {
		t.Errorf("%v, %v; want %v", got, err, p.sender.ID())
	}
}

// Each way to fail has a code and a reason that tell it from the others.
func TestSend_FailuresAreDistinct(t *testing.T) {
	large := wrapperspb.Bytes(make([]byte, 4<<20))
	p := taking(t, func(r *Router) {
		Handle(r, func(context.Context, peer.ID, *wrapperspb.BoolValue) (*emptypb.Empty, error) { panic("secret") })
		Handle(r, func(context.Context, peer.ID, *wrapperspb.Int32Value) (*emptypb.Empty, error) {
			return nil, fmt.Errorf("the shop: %w", status.Error(codes.AlreadyExists, "sold"))
		})
		Handle(r, func(context.Context, peer.ID, *wrapperspb.Int64Value) (*emptypb.Empty, error) {
			return nil, errors.New("no luck")
		})
		Handle(r, func(ctx context.Context, _ peer.ID, _ *durationpb.Duration) (*emptypb.Empty, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		Handle(r, echo[*wrapperspb.BytesValue])
		Handle(r, func(context.Context, peer.ID, *wrapperspb.DoubleValue) (*wrapperspb.BytesValue, error) {
			return large, nil
		})
		Handle(r, echo[*wrapperspb.StringValue])
	})
	// The time of those below is not for making the connection.
	if _, err := Send[*wrapperspb.StringValue](t.Context(), p.to(), wrapperspb.String("first")); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		message proto.Message
		code    codes.Code
		reason  grpcstream.Reason
		text    string
	}{
		"an unknown type":      {&structpb.Struct{}, codes.Unimplemented, ReasonUnknown, `no handler for messages of type "google.protobuf.Struct"`},
		"a status of its own":  {wrapperspb.Int32(1), codes.AlreadyExists, "", "the shop"},
		"another error":        {wrapperspb.Int64(1), codes.Unknown, "", "no luck"},
		"a panic":              {wrapperspb.Bool(true), codes.Internal, grpcstream.ReasonPanic, "the handler panicked"},
		"too large a message":  {large, codes.ResourceExhausted, "", "larger than max"},
		"too large an answer":  {wrapperspb.Double(1), codes.ResourceExhausted, "", "larger than max"},
		"too late":             {durationpb.New(1), codes.DeadlineExceeded, "", ""},
		"malformed here":       {wrapperspb.String("\xff"), codes.InvalidArgument, ReasonMalformed, "UTF-8"},
		"no message":           {nil, codes.InvalidArgument, ReasonMalformed, ""},
		"the handler's answer": {wrapperspb.String("fine"), codes.OK, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if tt.code == codes.DeadlineExceeded {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
			}
			_, err := Send[*wrapperspb.StringValue](ctx, p.to(), tt.message)
			if status.Code(err) != tt.code || grpcstream.ReasonOf(err) != tt.reason {
				t.Fatalf("%v (%v, %q); want %v, %q", err, status.Code(err), grpcstream.ReasonOf(err), tt.code, tt.reason)
			}
			if err != nil && !strings.Contains(err.Error(), tt.text) || err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the text is %q", err)
			}
		})
	}
}

func TestSend_NeedsANamedPeer(t *testing.T) {
	p := taking(t, func(r *Router) { Handle(r, echo[*emptypb.Empty]) })
	if got := p.server.Services(); len(got) != 0 {
		t.Errorf("announced: %v", got)
	}
	for _, cc := range []grpc.ClientConnInterface{p.channel, p.channel.Service(MessageService_ServiceDesc.ServiceName)} {
		_, err := Send[*emptypb.Empty](t.Context(), cc, &emptypb.Empty{})
		if status.Code(err) != codes.InvalidArgument || grpcstream.ReasonOf(err) != grpcstream.ReasonBadTarget {
			t.Errorf("%v, want InvalidArgument, BAD_TARGET", err)
		}
	}
}

func TestSend_APeerThatTakesNoMessages(t *testing.T) {
	p, stop := connect(t, func(grpc.ServiceRegistrar) {})
	defer stop()
	_, err := Send[*emptypb.Empty](t.Context(), p.to(), &emptypb.Empty{})
	if status.Code(err) != codes.Unimplemented || grpcstream.ReasonOf(err) != "" {
		t.Errorf("%v, want Unimplemented without a reason", err)
	}
}

// liar answers with what it likes.
type liar struct {
	UnimplementedMessageServiceServer
	answer *anypb.Any
}

func (l liar) Send(context.Context, *SendRequest) (*SendResponse, error) {
	return &SendResponse{Answer: l.answer}, nil
}

func TestSend_AnAnswerOfAnotherType(t *testing.T) {
	for name, answer := range map[string]*anypb.Any{
		"none":          nil,
		"another type":  {TypeUrl: "x/google.protobuf.Empty"},
		"no type":       {TypeUrl: "\x1b[2J"},
		"not its bytes": {TypeUrl: "x/google.protobuf.StringValue", Value: []byte{0xff}},
	} {
		p, stop := connect(t, func(s grpc.ServiceRegistrar) { RegisterMessageServiceServer(s, liar{answer: answer}) })
		got, err := Send[*wrapperspb.StringValue](t.Context(), p.to(), &emptypb.Empty{})
		if !errors.Is(err, ErrAnswer) || got != nil || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %v, %q; want ErrAnswer", name, got, err)
		}
		stop()
	}
}

func TestSend_GivesUpWithoutADeadline(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		r := NewRouter()
		ended := make(chan error, 1)
		Handle(r, func(ctx context.Context, _ peer.ID, _ *emptypb.Empty) (*emptypb.Empty, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, status.FromContextError(ctx.Err()).Err() // the answer may come before the caller's own deadline
		})
		p, stop := connect(t, func(s grpc.ServiceRegistrar) { Register(s, r) })
		defer stop()
		start := time.Now()
		_, err := Send[*emptypb.Empty](t.Context(), p.to(), &emptypb.Empty{})
		if d := time.Since(start); status.Code(err) != codes.DeadlineExceeded || d != timeout {
			t.Errorf("%v after %v, want DeadlineExceeded after %v", err, d, timeout)
		}
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context ended with %v", err)
		}
	})
}

func TestHandle_MistakesPanic(t *testing.T) {
	r := NewRouter()
	Handle(r, echo[*emptypb.Empty])
	for want, add := range map[string]func(){
		"google.protobuf.Empty has a handler already": func() { Handle(r, echo[*emptypb.Empty]) },
		"not a pointer to a generated message":        func() { Handle(r, echo[proto.Message]) },
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
					t.Errorf("it panicked with %q, want %q", got, want)
				}
			}()
			add()
		}()
	}
}

// FuzzSend hands the server what a hostile peer may send: it never panics, and its errors are fit for a terminal.
func FuzzSend(f *testing.F) {
	r := NewRouter()
	Handle(r, echo[*wrapperspb.StringValue])
	Handle(r, echo[*structpb.Struct])
	handlers := r.handlers
	for _, m := range []proto.Message{wrapperspb.String("ü"), &structpb.Struct{}, &emptypb.Empty{}} {
		sealed, err := anypb.New(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sealed.GetTypeUrl(), sealed.GetValue())
	}
	f.Add("/", []byte(nil))
	f.Add("google.protobuf.Struct", []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, url string, value []byte) {
		sealed := &anypb.Any{TypeUrl: url, Value: value}
		handle, ok := handlers[sealed.MessageName()]
		if !ok {
			return
		}
		answer, err := handle(t.Context(), "", sealed)
		switch {
		case err == nil && answer == nil:
			t.Error("neither an answer nor an error")
		case err != nil && (status.Code(err) != codes.InvalidArgument || grpcstream.ReasonOf(err) != ReasonMalformed):
			t.Errorf("%v", err)
		case err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }):
			t.Errorf("%q is not fit for a terminal", err)
		}
	})
}
