package grpcstream

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/lynn9388/p2p/grpcstream/internal/resume"
	"github.com/lynn9388/p2p/internal/safetext"
)

// reservedMetadata is the prefix of metadata that only this side may set.
const reservedMetadata = "p2p-"

// headerFieldOverhead is what RFC 9113, section 10.5.1, adds for each field of a header list.
const headerFieldOverhead = 32

const healthWatch = "/grpc.health.v1.Health/Watch"

// Every call is decided in admit, before its request is decoded. Unary methods get there from the handler that
// guardService puts into the descriptor, everything else (streams, unknown methods) from guardStream, the outermost
// stream interceptor.

// guardService returns a copy of desc with each unary method guarded, and opens the account of each method.
func (s *Server) guardService(desc *grpc.ServiceDesc, impl any) *grpc.ServiceDesc {
	guarded := *desc
	guarded.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for name := range methodNames(desc) {
		s.methods[name] = &method{name: name, impl: impl}
	}
	for i := range desc.Streams {
		s.methods["/"+desc.ServiceName+"/"+desc.Streams[i].StreamName].stream = &desc.Streams[i]
	}
	for i, m := range desc.Methods {
		guarded.Methods[i] = grpc.MethodDesc{
			MethodName: m.MethodName,
			Handler:    s.guardUnary(s.methods["/"+desc.ServiceName+"/"+m.MethodName], m.Handler),
		}
	}
	return &guarded
}

func (s *Server) guardUnary(m *method, next grpc.MethodHandler) grpc.MethodHandler {
	return func(impl any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (reply any, err error) {
		begin := time.Now()
		t, err := s.admit(ctx, m.name, ordinaryCall)
		if err != nil {
			m.stats.refused(err)
			return nil, err
		}
		defer m.stats.ended(begin, &err)
		defer t.release(ordinaryCall)
		defer s.recovered(t, m.name, &err)
		reply, err = next(impl, ctx, m.stats.receiving(decode), interceptor)
		if err == nil {
			m.stats.sent(reply)
		}
		return reply, err
	}
}

func (s *Server) guardStream(impl any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	begin := time.Now()
	name, resumed := strings.CutSuffix(info.FullMethod, resume.Suffix)
	m, ok := s.methods[name]
	if !ok || resumed && (m.stream == nil || name == healthWatch) { // which each tunnel has its own of
		m, resumed = &s.unknown, false
	}
	kind := callKind(m.name == healthWatch)
	t, err := s.admit(ss.Context(), m.name, kind)
	if err != nil {
		m.stats.refused(err)
		return err
	}
	defer t.release(kind)
	if resumed {
		return s.resumed(t, m, ss, func(ss grpc.ServerStream) error {
			info.FullMethod, info.IsClientStream, info.IsServerStream = m.name, m.stream.ClientStreams, m.stream.ServerStreams
			return next(m.impl, ss)
		})
	}
	defer m.stats.ended(begin, &err)
	defer s.recovered(t, m.name, &err)
	if kind == watchCall {
		ctx, cancel := context.WithCancel(ss.Context())
		defer cancel()
		defer context.AfterFunc(s.watches, cancel)()
		ss = watchStream{ss, ctx}
	}
	return next(impl, countedStream{ss, &m.stats})
}

// admit decides whether a call may run, and waits for its turn. The tunnel must be released after the call.
func (s *Server) admit(ctx context.Context, method string, kind callKind) (*tunnel, error) {
	t := tunnelFromContext(ctx)
	if t == nil {
		return nil, status.Error(codes.Internal, "grpcstream: the call did not come through a tunnel")
	}
	if err := s.decide(ctx, t, method); err != nil {
		s.metrics.refuse(refusedByPolicy)
		return nil, err
	}
	if err := t.acquire(ctx, kind); err != nil {
		s.metrics.refuse(refusedAsBusy)
		return nil, err
	}
	return t, nil
}

// tunnelFromContext returns the tunnel over which a call came, or nil when it did not come to a [Server].
func tunnelFromContext(ctx context.Context) *tunnel {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, _ := p.AuthInfo.(AuthInfo)
	return info.tunnel
}

// decide asks whether the peer may call. A panic of the one who decides refuses.
func (s *Server) decide(ctx context.Context, t *tunnel, method string) (err error) {
	if s.cfg.Authorize == nil {
		return nil
	}
	defer s.recovered(t, method, &err)
	if err := s.cfg.Authorize(ctx, Call{Peer: t.peer, Method: method}); err != nil {
		s.log.Debug("call refused", "peer", t.peer.ID, "service", method, "err", err)
		return refusal(err, t.peer.ID)
	}
	return nil
}

// unknownMethod answers the calls that are for no registered method by its own name.
func (s *Server) unknownMethod(_ any, ss grpc.ServerStream) error {
	path, _ := grpc.MethodFromServerStream(ss)
	if m := s.methods[path]; m != nil && m.stream != nil {
		return m.stream.Handler(m.impl, ss) // of a stream that is resumable, which came by another name
	}
	service, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	s.mu.Lock()
	_, known := s.services[service]
	s.mu.Unlock()
	if known {
		return status.Errorf(codes.Unimplemented, "grpcstream: service %s has no method %s", service, safetext.Clean(path))
	}
	return status.Errorf(codes.Unimplemented, "grpcstream: this node does not offer service %s", safetext.Clean(service))
}

// tapHeader takes out the metadata that a peer must not set, and refuses a call with too much of it. It runs before
// anything else sees the call, and under a lock of the tunnel: it must be quick.
func (s *Server) tapHeader(ctx context.Context, info *tap.Info) (context.Context, error) {
	size := 0
	for key, values := range info.Header {
		if strings.HasPrefix(key, reservedMetadata) {
			delete(info.Header, key)
		}
		for _, v := range values {
			size += len(key) + len(v) + headerFieldOverhead
		}
	}
	if size > s.cfg.MaxHeaderSize {
		return ctx, status.Errorf(codes.ResourceExhausted, "grpcstream: the metadata of the call is %d bytes, more than %d", size, s.cfg.MaxHeaderSize)
	}
	return ctx, nil
}

// methodNames yields the full names of a service's methods.
func methodNames(desc *grpc.ServiceDesc) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, m := range desc.Methods {
			if !yield(fmt.Sprintf("/%s/%s", desc.ServiceName, m.MethodName)) {
				return
			}
		}
		for _, m := range desc.Streams {
			if !yield(fmt.Sprintf("/%s/%s", desc.ServiceName, m.StreamName)) {
				return
			}
		}
	}
}

// A watchStream is a health watch with a context of its own. gRPC keeps the name that it asks for as long as it lasts.
type watchStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // a ServerStream carries its context
}

// Context implements [grpc.ServerStream].
func (s watchStream) Context() context.Context { return s.ctx }

// RecvMsg implements [grpc.ServerStream].
func (s watchStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if req, ok := m.(interface{ GetService() string }); ok && len(req.GetService()) > maxServiceLen {
		return status.Errorf(codes.InvalidArgument, "grpcstream: the name of the service to watch is longer than %d bytes", maxServiceLen)
	}
	return nil
}
