package reach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/quic-go/quic-go"
)

func TestCauseText(t *testing.T) {
	op := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp4", Addr: &net.TCPAddr{IP: net.IPv4(5, 0, 0, 1), Port: 9388}, Err: err}
	}
	dial := func(causes ...error) error {
		e := &swarm.DialError{Cause: swarm.ErrAllDialsFailed}
		for _, c := range causes {
			e.DialErrors = append(e.DialErrors, swarm.TransportError{Address: addrs("/ip4/5.0.0.1/tcp/1")[0], Cause: c})
		}
		return fmt.Errorf("host: %w", e)
	}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{context.DeadlineExceeded, "no answer"},
		{dial(context.Canceled), "no answer"},
		{dial(op(os.ErrDeadlineExceeded)), "no answer"},
		{dial(&quic.IdleTimeoutError{}, &quic.HandshakeTimeoutError{}, libp2pquic.ErrHolePunching), "no answer"},
		{dial(op(os.NewSyscallError("connect", syscall.ECONNREFUSED))), "the network says: connection refused"},
		{dial(op(os.NewSyscallError("connect", syscall.ENETUNREACH)), op(syscall.EHOSTUNREACH)), "the network says: network is unreachable; the network says: no route to host"},
		{errors.Join(dial(op(os.ErrDeadlineExceeded)), dial(swarm.ErrNoTransport)), "no answer; this node does not speak that transport"},
		{errors.New("x\x1b[2J"), "x"},
	} {
		if got := causeText(tc.err); !strings.HasPrefix(got, tc.want) || strings.ContainsRune(got, 0x1b) {
			t.Errorf("%v: %q, want %q", tc.err, got, tc.want)
		}
	}
}

func TestExplain(t *testing.T) {
	a := addrs("/ip4/7.0.0.1/tcp/1")
	known, sym, some := offer{addrs: a, udp: MappingIndependent}, offer{addrs: a, udp: MappingSymmetric}, offer{addrs: a, udp: MappingSomeNAT}
	unanswered := []Met{{Err: noAnswer}, {Err: noAnswer}, {Err: "refused"}}
	for _, tc := range []struct {
		mine, theirs offer
		met          []Met
		want         string
	}{
		{offer{}, offer{}, nil, "neither side knows an address"},
		{known, offer{}, nil, "the peer knows no address of its own"},
		{sym, sym, unanswered, "the NATs of both sides give out a new port"},
		{sym, known, unanswered, "this node's NAT gives out a new port"},
		{known, sym, unanswered, "the peer's NAT gives out a new port"},
		{known, known, []Met{{Err: "refused", How: "lan"}, {Err: noAnswer, How: "lan"}, {Err: noAnswer}}, "nobody was met at 2 addresses, no answer at 1 address"},
		{known, offer{addrs: a, public: true}, unanswered, "the peer says it is public, but: no answer at 2 addresses, refused at 1 address"},
		{known, known, unanswered, "no answer at 2 addresses, refused at 1 address"},
		{some, known, unanswered, "no answer at 2 addresses, refused at 1 address; this node's NAT may"},
		{known, offer{addrs: a}, unanswered, "no answer at 2 addresses, refused at 1 address; the peer's NAT may"},
		{some, offer{addrs: a}, unanswered, "no answer at 2 addresses, refused at 1 address; one of the NATs may"},
	} {
		if got := explain(exchanged{mine: tc.mine, theirs: tc.theirs}, tc.met); !strings.HasPrefix(got, tc.want) || !strings.Contains(tc.want, "may") && strings.Contains(got, "may") {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}
