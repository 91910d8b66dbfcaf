package grpcstream

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/lynn9388/p2p/internal/safetext"
)

// Recover is deferred in the code of a handler and turns a panic into an error of code Internal with [ReasonPanic], which
// tells the caller nothing of it. ctx is the call's. On a [Server] the panic is logged and counted there, elsewhere it
// is logged by slog.Default. A Server does the same with every handler: Recover is for services that must be safe on
// any gRPC server.
func Recover(ctx context.Context, err *error) {
	r := recover()
	if r == nil {
		return
	}
	method, _ := grpc.Method(ctx)
	if t := tunnelFromContext(ctx); t != nil {
		*err = t.srv.panicked(t, method, r)
		return
	}
	*err = panicked(slog.Default(), method, r)
}

// recovered turns a panic of a handler, an interceptor or the authorizer into Internal. It must be deferred.
func (s *Server) recovered(t *tunnel, method string, err *error) {
	if r := recover(); r != nil {
		*err = s.panicked(t, method, r)
	}
}

func (s *Server) panicked(t *tunnel, method string, r any) error {
	s.metrics.panicked()
	return panicked(s.log.With("peer", t.peer.ID), method, r)
}

func panicked(log *slog.Logger, method string, r any) error {
	log.Error("handler panicked", "service", safetext.Clean(method), "err", safetext.Clean(fmt.Sprint(r)), "stack", string(debug.Stack()))
	return &Error{
		Code:    codes.Internal,
		Reason:  ReasonPanic,
		Message: "the handler panicked",
		Remedy:  "see the log of the node that was called",
	}
}
