package grpcstream

import (
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// ErrorDomain is the domain of the errdetails.ErrorInfo that this package's errors carry.
const ErrorDomain = "p2p"

// A Reason names the cause of an error in its errdetails.ErrorInfo. A program decides by it, a person by the text.
type Reason string

// The reasons, each with the status code it comes with.
const (
	// ReasonNoInstance (Unavailable): nobody is known who offers the service, or the peer is not known.
	ReasonNoInstance Reason = "NO_INSTANCE"
	// ReasonNotServing (Unavailable): the instances known say that they are not serving.
	ReasonNotServing Reason = "NOT_SERVING"
	// ReasonNoRoute (Unavailable): the peer is known and cannot be reached, or its connection ended before the call
	// could begin.
	ReasonNoRoute Reason = "NO_ROUTE"
	// ReasonNoAnswer (Unavailable): the peer took the connection and then did not speak gRPC in time.
	ReasonNoAnswer Reason = "NO_ANSWER"
	// ReasonWrongPeer (Unavailable): somebody else than the peer named answers at its address.
	ReasonWrongPeer Reason = "WRONG_PEER"
	// ReasonProtocolNotSupported (Unavailable): the peer does not speak the tunnel protocol of this network.
	ReasonProtocolNotSupported Reason = "PROTOCOL_NOT_SUPPORTED"
	// ReasonRefused (PermissionDenied, or Unavailable before a call): a policy, here or there, refuses the peer.
	ReasonRefused Reason = "REFUSED"
	// ReasonPathMoved (Unavailable): the stream went over a relay, and a direct path has taken its place.
	ReasonPathMoved Reason = "PATH_MOVED"
	// ReasonRelayLimit (Unavailable): the connection has reached what the relay carries, in bytes or in time.
	ReasonRelayLimit Reason = "RELAY_LIMIT"
	// ReasonRelayRefused (Unavailable): the relay does not carry to the peer: the peer has no reservation there, the relay's
	// policy forbids it, or the relay is full.
	ReasonRelayRefused Reason = "RELAY_REFUSED"
	// ReasonNotResumed (Unavailable, or Aborted when the peer does not know it any longer): a stream with [Resumable] could
	// not go on.
	ReasonNotResumed Reason = "NOT_RESUMED"
	// ReasonBusy (ResourceExhausted): a limit was hit, here or there; the call may be tried again later.
	ReasonBusy Reason = "BUSY"
	// ReasonBadTarget (InvalidArgument): what was named is no target, or the call needs one.
	ReasonBadTarget Reason = "BAD_TARGET"
	// ReasonPanic (Internal): the handler panicked; the log of the node that was called has more.
	ReasonPanic Reason = "PANIC"
)

// An Error is a failure whose cause is known: a gRPC status with an errdetails.ErrorInfo of domain [ErrorDomain], and
// a text that says what to do. It is immutable, and the zero value is not useful.
type Error struct {
	// Code is the status code.
	Code codes.Code
	// Reason is the reason of the ErrorInfo.
	Reason Reason
	// Message says what happened. Whatever a peer chose in it was cleaned of control characters.
	Message string
	// Remedy says what to do, or is empty.
	Remedy string
	// Details go along with the ErrorInfo, for example an errdetails.RetryInfo.
	Details []protoadapt.MessageV1
	// Err is the cause, or nil. It stays on this side: its text is not part of the status.
	Err error
}

// Error returns the message and the remedy.
func (e *Error) Error() string {
	if e.Remedy == "" {
		return "grpcstream: " + e.Message
	}
	return "grpcstream: " + e.Message + ": " + e.Remedy
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus returns the error as a gRPC status with its details.
func (e *Error) GRPCStatus() *status.Status {
	st := status.New(e.Code, e.Error())
	info := &errdetails.ErrorInfo{Reason: string(e.Reason), Domain: ErrorDomain}
	if e.Remedy != "" {
		info.Metadata = map[string]string{"remedy": e.Remedy}
	}
	if with, err := st.WithDetails(append([]protoadapt.MessageV1{info}, e.Details...)...); err == nil {
		return with
	}
	return st
}

// ReasonOf returns the reason that err carries, as an [*Error] or as the status of a call, and "" when it carries
// none. A reason that a server sent is its claim.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	st, ok := status.FromError(err)
	if !ok || err == nil {
		return ""
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == ErrorDomain {
			return Reason(info.GetReason())
		}
	}
	return ""
}
