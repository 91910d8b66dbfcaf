package portmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// NAT-PMP is RFC 6886: a question of 2 or 12 bytes to the gateway, an answer of 12 or 16.
const (
	pmpPort = 5351

	// pmpFirstWait is how long the first question waits for its answer, each further one waits twice as long. The RFC asks
	// nine times; a router that is there answers the first or the second.
	pmpFirstWait = 250 * time.Millisecond
	pmpTries     = 4

	pmpAnswers = 128 // is added to the operation in an answer
	pmpMax     = 16  // bytes of the longest answer
)

// pmp is a router that speaks NAT-PMP.
type pmp struct{ at netip.AddrPort }

// String implements router.
func (p pmp) String() string { return "NAT-PMP" }

// external implements router.
func (p pmp) external(ctx context.Context) (netip.Addr, error) {
	b, err := p.ask(ctx, []byte{0, 0})
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.AddrFrom4([4]byte(b[8:12])), nil
}

// add implements router.
func (p pmp) add(ctx context.Context, port Port, want uint16, lifetime time.Duration) (uint16, error) {
	q := make([]byte, 12)
	q[1] = 1
	if port.Network == "tcp" {
		q[1] = 2
	}
	binary.BigEndian.PutUint16(q[4:], port.Number)
	binary.BigEndian.PutUint16(q[6:], want)
	binary.BigEndian.PutUint32(q[8:], uint32(lifetime/time.Second))
	b, err := p.ask(ctx, q)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint16(b[10:]), nil
}

// remove implements router.
func (p pmp) remove(ctx context.Context, port Port, _ uint16) error {
	_, err := p.add(ctx, port, 0, 0)
	return err
}

// ask returns the answer to a question.
func (p pmp) ask(ctx context.Context, q []byte) ([]byte, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "udp4", p.at.String())
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	wait := pmpFirstWait
	for range pmpTries {
		if _, err := c.Write(q); err != nil {
			return nil, err
		}
		b, err := awaitPMP(ctx, c, q, wait)
		if err == nil {
			return b, nil
		}
		if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() || ctx.Err() != nil {
			return nil, err
		}
		wait *= 2
	}
	return nil, errNoAnswer
}

var errNoAnswer = errors.New("no answer")

// awaitPMP reads until the answer to q has come.
func awaitPMP(ctx context.Context, c net.Conn, q []byte, wait time.Duration) ([]byte, error) {
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b := make([]byte, pmpMax)
	for {
		n, err := c.Read(b) // from the gateway only: the socket is connected to it
		if err != nil {
			return nil, err
		}
		if ok, err := answersPMP(b[:n], q); ok || err != nil {
			return b[:n], err
		}
	}
}

// answersPMP tells whether b is the answer to q. An error is the router's own.
func answersPMP(b, q []byte) (bool, error) {
	if len(b) < 12 || b[0] != 0 || b[1] != q[1]+pmpAnswers {
		return false, nil
	}
	if code := binary.BigEndian.Uint16(b[2:]); code != 0 {
		return true, fmt.Errorf("the router answers with the result code %d of NAT-PMP", code)
	}
	if len(q) > 2 && (len(b) < pmpMax || binary.BigEndian.Uint16(b[8:]) != binary.BigEndian.Uint16(q[4:])) {
		return false, nil // an answer to another question
	}
	return true, nil
}
