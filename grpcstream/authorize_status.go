package grpcstream

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// The domain and the reasons of the errdetails.ErrorInfo in the errors that a [Server] gives to callers.
const (
	errorDomain   = "p2p"
	reasonRefused = "REFUSED"
	reasonBusy    = "BUSY"
)

// busyRetryDelay is when a caller that was told BUSY may try again.
const busyRetryDelay = time.Second

// refusal is the answer to a caller that may not call. It is the same for methods that exist and that do not.
func refusal(err error, id peer.ID) error {
	var own interface{ GRPCStatus() *status.Status }
	if errors.As(err, &own) && own.GRPCStatus().Code() != codes.OK {
		return own.GRPCStatus().Err()
	}
	return detailed(codes.PermissionDenied,
		fmt.Sprintf("grpcstream: peer %s may not call this; ask for the ID to be allowed there", id),
		&errdetails.ErrorInfo{Reason: reasonRefused, Domain: errorDomain})
}

// busy is the answer to a call that waited in vain for its turn.
func busy(what string, limit int) error {
	return detailed(codes.ResourceExhausted,
		fmt.Sprintf("grpcstream: busy: %s (limit %d); try again later", what, limit),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(busyRetryDelay)},
		&errdetails.ErrorInfo{Reason: reasonBusy, Domain: errorDomain, Metadata: map[string]string{
			"limit": strconv.Itoa(limit),
		}})
}

func detailed(code codes.Code, text string, details ...protoadapt.MessageV1) error {
	st := status.New(code, text)
	if with, err := st.WithDetails(details...); err == nil {
		st = with
	}
	return st.Err()
}

// contextStatus is the status of a call whose context has ended.
func contextStatus(err error) error { return status.FromContextError(err).Err() }
