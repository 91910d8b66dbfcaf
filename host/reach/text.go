package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/quic-go/quic-go"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/safetext"
)

// noAnswer is what most dials to who is not there meet.
const noAnswer = "no answer"

// dialText says in one line why a relay could not be dialed.
func dialText(err error) string {
	if id, at, ok := host.Answered(err); ok {
		where := ""
		if hp, ok := addr.HostPort(at); ok {
			where = " at " + hp
		}
		return fmt.Sprintf("another peer answers%s, %s: correct the relay's ID", where, id)
	}
	return causeText(err)
}

// causeText returns the causes of a failed dial in one line, each once.
func causeText(err error) string {
	var texts []string
	for _, cause := range causes(err) {
		if text := oneText(cause); !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, "; ")
}

// causes returns what the addresses of a dial met. The dials of both versions of IP are joined.
func causes(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, causes(e)...)
		}
		return out
	}
	dial, ok := errors.AsType[*swarm.DialError](err)
	if !ok || len(dial.DialErrors) == 0 {
		return []error{err}
	}
	var out []error
	for _, e := range dial.DialErrors {
		out = append(out, e.Cause)
	}
	return out
}

// oneText says what a dial met.
func oneText(err error) string {
	timeout, isNet := errors.AsType[net.Error](err)
	op, isOp := errors.AsType[*net.OpError](err)
	_, idle := errors.AsType[*quic.IdleTimeoutError](err)
	_, slow := errors.AsType[*quic.HandshakeTimeoutError](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.Canceled),
		errors.Is(err, libp2pquic.ErrHolePunching), idle, slow, isNet && timeout.Timeout():
		return noAnswer
	case errors.Is(err, swarm.ErrNoTransport):
		return "this node does not speak that transport"
	case errors.Is(err, network.ErrResourceLimitExceeded):
		return "this node has too many connections"
	case isOp:
		return "the network says: " + systemText(op)
	default:
		return safetext.Clean(err.Error())
	}
}

// exchangeText says why the addresses could not be exchanged.
func exchangeText(err error) string {
	reset, isReset := errors.AsType[*network.StreamError](err)
	switch {
	case isReset && reset.Remote:
		return "the peer ended the exchange of addresses, as it does when it is asked too often"
	case isReset, errors.Is(err, net.ErrClosed), errors.Is(err, network.ErrReset), errors.Is(err, io.EOF):
		return "the relayed connection ended"
	default:
		return "over the relay: " + oneText(err)
	}
}

// systemText returns what the system said, without the addresses around it.
func systemText(op *net.OpError) string {
	if sys, ok := errors.AsType[*os.SyscallError](op.Err); ok {
		return safetext.Clean(sys.Err.Error())
	}
	return safetext.Clean(op.Err.Error())
}

// text says in one line why no connection to the relay is there, equal reasons once.
func (r *relay) text() string {
	var reasons []string
	over := map[string][]string{}
	for k := kindNone + 1; k < kinds; k++ {
		s := &r.slots[k]
		if s.text == "" || s.guessed && len(reasons) > 0 {
			continue
		}
		if over[s.text] == nil {
			reasons = append(reasons, s.text)
		}
		over[s.text] = append(over[s.text], k.String())
	}
	for i, reason := range reasons {
		reasons[i] = strings.Join(over[reason], ", ") + ": " + reason
	}
	return strings.Join(reasons, "; ")
}
