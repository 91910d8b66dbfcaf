package p2p

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
)

// A peer that a relay carries is told what a dial to it met, and not which private address the dial left from.
func TestDialProblem_NamesNoAddressOfThisNode(t *testing.T) {
	dial := func(err error) error {
		return fmt.Errorf("host: %w", &net.OpError{Op: "read", Net: "tcp4", Source: &net.TCPAddr{IP: net.IPv4(192, 168, 1, 5), Port: 1}, Err: err})
	}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{dial(os.NewSyscallError("read", syscall.ECONNRESET)), "connection reset by peer"},
		{dial(errors.New("closed")), "closed"},
		{errors.New("no handshake"), "no handshake"},
	} {
		if got := dialProblem(tc.err); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.err, got, tc.want)
		}
	}
}
