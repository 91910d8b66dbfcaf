package grpcstream

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// busyRetryDelay is when a caller that was told BUSY may try again.
const busyRetryDelay = time.Second

// refusal is the answer to a caller that may not call. It is the same for methods that exist and that do not.
func refusal(err error, id peer.ID) error {
	var own interface{ GRPCStatus() *status.Status }
	if errors.As(err, &own) && own.GRPCStatus().Code() != codes.OK {
		return own.GRPCStatus().Err()
	}
	return &Error{
		Code:    codes.PermissionDenied,
		Reason:  ReasonRefused,
		Message: fmt.Sprintf("peer %s may not call this", id),
		Remedy:  "have this ID allowed at the node that was called",
	}
}

// busy is the answer to a call that waited in vain for its turn.
func busy(what string) error {
	return &Error{
		Code:    codes.ResourceExhausted,
		Reason:  ReasonBusy,
		Message: "busy, " + what,
		Remedy:  "try again later",
		Details: []protoadapt.MessageV1{&errdetails.RetryInfo{RetryDelay: durationpb.New(busyRetryDelay)}},
	}
}

// contextStatus is the status of a call whose context has ended.
func contextStatus(err error) error { return status.FromContextError(err).Err() }
