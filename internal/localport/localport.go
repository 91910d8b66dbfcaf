// Package localport finds ports of localhost for tests.
package localport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Systems give who asks for any port one from 32768 or 49152 on.
const first, count = 20_000, 10_000

// Both listens on a TCP and a UDP port of 127.0.0.1 with one number, which nobody gets who asks for any.
func Both() (stream net.Listener, packets net.PacketConn, port string, err error) {
	var lc net.ListenConfig
	var errs []error
	for range 100 {
		port := fmt.Sprint(first + rand.IntN(count))
		at := net.JoinHostPort("127.0.0.1", port)
		l, err := lc.Listen(context.Background(), "tcp4", at)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c, err := lc.ListenPacket(context.Background(), "udp4", at)
		if err == nil {
			return l, c, port, nil
		}
		errs = append(errs, err, l.Close())
	}
	return nil, nil, "", errors.Join(errs...)
}

// Free returns the number of a port of 127.0.0.1 at which nobody listens, over TCP or UDP, and that nobody gets who asks
// for any: one can listen there later, and again.
func Free() (string, error) {
	stream, packets, port, err := Both()
	if err != nil {
		return "", err
	}
	return port, errors.Join(stream.Close(), packets.Close())
}
