package grpcstream

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	circuitpb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"google.golang.org/grpc/codes"

	"github.com/lynn9388/p2p/internal/safetext"
)

// asError makes an [*Error] of what kept a tunnel to a peer from being made.
func asError(id peer.ID, err error, networkName string) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if e := refusedByRelay(id, err); e != nil {
		return e
	}
	return asDialError(id, err, networkName)
}

func asDialError(id peer.ID, err error, networkName string) *Error {
	e := &Error{Code: codes.Unavailable, Err: err}
	mismatch, wrong := asMismatch(err)
	connErr, _ := errors.AsType[*network.ConnError](err)
	streamErr, _ := errors.AsType[*network.StreamError](err)
	text := oneLine(err)
	switch {
	case wrong:
		e.Reason = ReasonWrongPeer
		e.Message = fmt.Sprintf("peer %s was dialed, and %s answered", id, mismatch.Actual)
		e.Remedy = "name the peer that is to be called; nothing was sent to the one that answered"
	case errors.Is(err, ErrProtocolNotSupported), strings.Contains(text, ErrProtocolNotSupported.Error()):
		e.Reason = ReasonProtocolNotSupported
		e.Message = fmt.Sprintf("peer %s does not speak the tunnel protocol of network %q", id, networkName)
		e.Remedy = "check that it serves gRPC and that both nodes have the same network name"
	case connErr != nil && connErr.ErrorCode == network.ConnGated,
		streamErr != nil && streamErr.ErrorCode == network.StreamGated,
		strings.Contains(text, "gater disallows"):
		e.Reason = ReasonRefused
		e.Message = fmt.Sprintf("the connection with peer %s is refused by a policy: %s", id, text)
		e.Remedy = "put each node on the other's allow list"
	case errors.Is(err, network.ErrResourceLimitExceeded),
		connErr != nil && (connErr.ErrorCode == network.ConnResourceLimitExceeded || connErr.ErrorCode == network.ConnRateLimited),
		streamErr != nil && (streamErr.ErrorCode == network.StreamResourceLimitExceeded || streamErr.ErrorCode == network.StreamRateLimited):
		e.Reason = ReasonBusy
		e.Message = fmt.Sprintf("a limit was hit on the way to peer %s: %s", id, text)
		e.Remedy = "try again later, or raise the limit named"
	case lostUnderway(err):
		e.Reason = ReasonNoRoute
		e.Message, e.Remedy = aboutLost(id, connErr)
		e.Message += ": " + text
	case strings.Contains(text, "server preface"):
		e.Reason = ReasonNoAnswer
		e.Message = fmt.Sprintf("peer %s took the tunnel and did not greet in gRPC: %s", id, text)
		e.Remedy = "it hangs, or is no gRPC server: restart it"
	case errors.Is(err, context.DeadlineExceeded):
		e.Reason = ReasonNoRoute
		e.Message = fmt.Sprintf("peer %s did not answer within %s", id, connectTimeout)
		e.Remedy = "check that it is running and that no firewall drops its packets"
	default:
		e.Reason = ReasonNoRoute
		e.Message = fmt.Sprintf("peer %s cannot be reached: %s", id, text)
		e.Remedy = "check that it is running and that its addresses are right"
	}
	return e
}

// asMismatch finds the refusal of somebody else's identity, which libp2p returns as a value or as a pointer.
func asMismatch(err error) (sec.ErrPeerIDMismatch, bool) {
	if m, ok := errors.AsType[sec.ErrPeerIDMismatch](err); ok {
		return m, true
	}
	if m, ok := errors.AsType[*sec.ErrPeerIDMismatch](err); ok && m != nil {
		return *m, true
	}
	return sec.ErrPeerIDMismatch{}, false
}

// oneLine returns an error's text, which may hold what a peer chose, fit to stand in one line.
func oneLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n  * ", " ")
	return safetext.Clean(strings.ReplaceAll(text, "\n", " "))
}

// A relayAnswer is what it means that a relay does not carry, and what to do.
type relayAnswer struct {
	reason       Reason
	what, remedy string
}

// relayAnswers are the answers of https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md that end a dial.
var relayAnswers = map[circuitpb.Status]relayAnswer{ //nolint:gochecknoglobals // a table that nobody writes
	circuitpb.Status_NO_RESERVATION: {
		ReasonRelayRefused, "the peer is not connected to it",
		"check that the peer is running and uses this relay",
	},
	circuitpb.Status_PERMISSION_DENIED: {
		ReasonRelayRefused, "it is not allowed to carry between this node and the peer",
		"put both on the relay's allow list",
	},
	circuitpb.Status_RESOURCE_LIMIT_EXCEEDED: {
		ReasonRelayRefused, "it carries as many connections of one of the two as it may",
		"try again later, or raise the relay's limit",
	},
	circuitpb.Status_CONNECTION_FAILED: {
		ReasonNoRoute, "it has lost the peer",
		"check that the peer is running; if it is, it will be back soon",
	},
}

// refusedByRelay makes an [*Error] of a dial that a relay has answered, or returns nil. That a relay answers tells more
// than that the peer's other addresses did not.
func refusedByRelay(id peer.ID, err error) *Error {
	dial, ok := errors.AsType[*swarm.DialError](err)
	if !ok {
		return nil
	}
	var e *Error
	for _, d := range dial.DialErrors {
		relay, relayed := relayOf(d.Address)
		if !relayed || d.Cause == nil {
			continue
		}
		status := relayStatus(d.Cause)
		a, ok := relayAnswers[status]
		if !ok && strings.Contains(d.Cause.Error(), "error opening hop stream to relay") {
			a, ok = relayAnswer{
				ReasonNoRoute, "the relay cannot be reached: " + oneLine(d.Cause),
				"check that it is running and that its addresses are right",
			}, true
		}
		if !ok || e != nil && e.Reason == ReasonRelayRefused {
			continue
		}
		if status == circuitpb.Status_NO_RESERVATION || status == circuitpb.Status_CONNECTION_FAILED {
			err = fmt.Errorf("%w: %w", errAwayFromRelay, err)
		}
		e = &Error{
			Code: codes.Unavailable, Reason: a.reason, Err: err,
			Message: fmt.Sprintf("peer %s cannot be reached through relay %s: %s", id, relay, a.what),
			Remedy:  a.remedy,
		}
	}
	return e
}

// relayStatus finds the status that a relay has answered, which libp2p passes on as text only: "error opening relay
// circuit: NO_RESERVATION (204)".
func relayStatus(err error) circuitpb.Status {
	_, rest, _ := strings.Cut(err.Error(), "error opening relay circuit: ")
	name, _, _ := strings.Cut(rest, " ")
	return circuitpb.Status(circuitpb.Status_value[name])
}

// aboutLost tells how a connection was lost, and what to do.
func aboutLost(id peer.ID, err *network.ConnError) (message, remedy string) {
	switch {
	case err == nil || err.ErrorCode != network.ConnGarbageCollected:
	case err.Remote:
		return fmt.Sprintf("peer %s had no use for the connection and closed it", id), "try again"
	default:
		return fmt.Sprintf("the connection with peer %s was closed for want of use", id), "try again"
	}
	return fmt.Sprintf("the connection with peer %s was lost", id), "check that it is running and that the network between works, and try again"
}
