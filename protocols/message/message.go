// Package message sends typed messages to a peer: p2p.message.v1.MessageService, defined in message.proto. It is what
// RegisterProcess and SendMessage were in 2018, for those who want no gRPC service of their own.
//
// A node takes messages with one handler for each type, and sends one with the types in its hand:
//
//	router := message.NewRouter()
//	message.Handle(router, func(ctx context.Context, from peer.ID, ping *pb.Ping) (*pb.Pong, error) { … })
//	message.Register(node, router) // before the start
//
//	pong, err := message.Send[*pb.Pong](ctx, node.Peer(id), &pb.Ping{})
//
// The sender is who the connection proves: the server must use grpcstream's credentials, as each node and each
// grpcstream.Server does. Who may send is for the server to decide. The service is one of the nodes' own: a message
// needs a named peer.
//
// # Errors
//
// The error of [Send] is a gRPC status. Code and reason ([grpcstream.ReasonOf]) tell the cases apart:
//
//	Unimplemented, UNKNOWN_MESSAGE   the peer has no handler for the type
//	Unimplemented                    the peer takes no messages at all
//	InvalidArgument, BAD_MESSAGE     the bytes are no message of their type
//	InvalidArgument, BAD_TARGET      no peer was named
//	ResourceExhausted                the message or its answer is larger than allowed: 4 MiB, unless configured
//	ResourceExhausted, BUSY          the peer has too much to do
//	Internal, PANIC                  the handler panicked
//	DeadlineExceeded                 the time was up, see [Send]
//	PermissionDenied, Unavailable    the peer refused the call, or was not reached
//	Unauthenticated                  the connection does not prove who sends
//	anything else                    what the handler returned: its own status, or Unknown with its text
//
// A handler may return each of the codes itself; the reasons are the package's, as long as the peer is honest.
package message

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/internal/safetext"
)

// The reasons that this package adds to those of grpcstream.
const (
	// ReasonUnknown (Unimplemented): there is no handler for the message's type.
	ReasonUnknown grpcstream.Reason = "UNKNOWN_MESSAGE"
	// ReasonMalformed (InvalidArgument): the message cannot be read as one of its type.
	ReasonMalformed grpcstream.Reason = "BAD_MESSAGE"
)

// ErrAnswer means that the peer answered with something else than a message of the type asked for.
var ErrAnswer = errors.New("answer breaks the protocol")

// timeout ends a Send whose context has no deadline of its own.
const timeout = 10 * time.Second

// A Router knows the handler of each type of message. Make one with [NewRouter]. It may be used concurrently.
type Router struct {
	mu       sync.RWMutex
	handlers map[protoreflect.FullName]handler
}

type handler func(ctx context.Context, from peer.ID, message *anypb.Any) (proto.Message, error)

// NewRouter returns a router without handlers.
func NewRouter() *Router { return &Router{handlers: make(map[protoreflect.FullName]handler)} }

// Handle has handle answer the messages of type Req, a pointer to a generated type, at r. It may be called at any time,
// and handle is called concurrently. from has sent the message, as the connection proves. ctx ends with the sender's
// patience, and grpcstream.PeerFromContext(ctx) has more about it. A nil answer is sent as an empty one. Handle panics
// when r has a handler for the type already, and when Req or Resp is no type of a message.
func Handle[Req, Resp proto.Message](r *Router, handle func(ctx context.Context, from peer.ID, message Req) (Resp, error)) {
	name := typeOf[Req]().Descriptor().FullName()
	typeOf[Resp]()
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.handlers[name]; ok {
		panic(fmt.Sprintf("message: %s has a handler already", name))
	}
	r.handlers[name] = func(ctx context.Context, from peer.ID, message *anypb.Any) (proto.Message, error) {
		req, err := open[Req](message)
		if err != nil {
			return nil, failure(codes.InvalidArgument, ReasonMalformed, err)
		}
		return handle(ctx, from, req)
	}
}

// Register offers MessageService on s, a node or any other gRPC server, answered by r. Like every registration it must
// come before the server is started.
func Register(s grpc.ServiceRegistrar, r *Router) {
	RegisterMessageServiceServer(s, &server{router: r})
}

type server struct {
	UnimplementedMessageServiceServer
	router *Router
}

func (s *server) Send(ctx context.Context, req *SendRequest) (res *SendResponse, err error) {
	defer grpcstream.Recover(ctx, &err)
	from, ok := grpcstream.PeerFromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "message: the connection does not say who sends")
	}
	name := req.GetMessage().MessageName()
	s.router.mu.RLock()
	handle, ok := s.router.handlers[name]
	s.router.mu.RUnlock()
	if !ok {
		return nil, failure(codes.Unimplemented, ReasonUnknown, fmt.Errorf("no handler for messages of type %q", name))
	}
	answer, err := handle(ctx, from.ID, req.GetMessage())
	if err != nil {
		return nil, err
	}
	sealed, err := anypb.New(answer)
	return &SendResponse{Answer: sealed}, err
}

// Send sends a message to the peer behind cc, node.Peer(id), and returns the answer, which must be a Resp, a pointer to
// a generated type; *emptypb.Empty where there is nothing to say. Without a deadline in ctx it gives up after 10 s. The
// message may have been handled when Send fails. It panics when Resp is no type of a message.
func Send[Resp proto.Message](ctx context.Context, cc grpc.ClientConnInterface, message proto.Message, opts ...grpc.CallOption) (answer Resp, err error) {
	typeOf[Resp]()
	sealed, err := anypb.New(message)
	if err != nil {
		return answer, failure(codes.InvalidArgument, ReasonMalformed, err)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	res, err := NewMessageServiceClient(cc).Send(ctx, &SendRequest{Message: sealed}, opts...)
	if err != nil {
		return answer, fmt.Errorf("message: send %s: %w", sealed.MessageName(), err)
	}
	if answer, err = open[Resp](res.GetAnswer()); err != nil {
		return answer, fmt.Errorf("message: send %s: %w: %w", sealed.MessageName(), ErrAnswer, err)
	}
	return answer, nil
}

// typeOf returns an empty message of type M, not to be written to.
func typeOf[M proto.Message]() protoreflect.Message {
	var m M
	if any(m) == nil {
		panic(fmt.Sprintf("message: %v is not a pointer to a generated message", reflect.TypeFor[M]()))
	}
	return m.ProtoReflect()
}

// open reads a message that must be an M.
func open[M proto.Message](sealed *anypb.Any) (M, error) {
	m, _ := typeOf[M]().New().Interface().(M) // is of the type it was made from
	if err := sealed.UnmarshalTo(m); err != nil {
		var none M
		return none, err
	}
	return m, nil
}

// failure is a status with a reason.
func failure(code codes.Code, reason grpcstream.Reason, cause error) error {
	st := status.New(code, "message: "+safetext.Clean(cause.Error()))
	info := &errdetails.ErrorInfo{Reason: string(reason), Domain: grpcstream.ErrorDomain}
	if with, err := st.WithDetails(info); err == nil {
		st = with
	}
	return st.Err()
}
