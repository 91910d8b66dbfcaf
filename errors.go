package p2p

import (
	"net"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The states of a [Node] in which a method cannot do its work. Compare with [errors.Is]. As errors of a call they have
// the status codes FailedPrecondition and Canceled.
var (
	// ErrNotStarted is returned for a call on a node before StartServer or Run has succeeded.
	ErrNotStarted error = &stateError{text: "p2p: the node is not started: call StartServer first", code: codes.FailedPrecondition}
	// ErrStarted is returned by StartServer and Run on a node that runs.
	ErrStarted error = &stateError{text: "p2p: the node is already started", code: codes.FailedPrecondition}
	// ErrClosed is returned by what is used after Close; it also matches [net.ErrClosed].
	ErrClosed error = &stateError{text: "p2p: the node is closed", code: codes.Canceled, is: net.ErrClosed}
)

// stateError is a constant error that is also a gRPC status, since callers of a service look at codes.
type stateError struct {
	text string
	code codes.Code
	is   error
}

func (e *stateError) Error() string              { return e.text }
func (e *stateError) Is(target error) bool       { return e.is != nil && target == e.is }
func (e *stateError) GRPCStatus() *status.Status { return status.New(e.code, e.text) }
