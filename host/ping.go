package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

// pingProtocol is libp2p's: 32 bytes that come back. https://github.com/libp2p/specs/blob/master/ping/ping.md
const (
	pingProtocol protocol.ID = "/ipfs/ping/1.0.0"
	pingSize     int         = 32
)

// Ping measures the time that 32 bytes take to the other end of one connection and back, relayed or not, which libp2p's
// own ping does for whichever connection to the peer is the best. An error before ctx ends may come from a peer that
// lives and has no ping.
func Ping(ctx context.Context, c network.Conn) (time.Duration, error) {
	s, err := c.NewStream(network.WithAllowLimitedConn(ctx, "ping"))
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	defer func() { _ = s.Reset() }() // nothing is left to be said
	if err := s.SetProtocol(pingProtocol); err != nil {
		return 0, err
	}
	sent, back := make([]byte, pingSize), make([]byte, pingSize)
	_, _ = rand.Read(sent) // never fails
	if err := multistream.SelectProtoOrFail(pingProtocol, s); err != nil {
		return 0, err
	}
	start := time.Now()
	if _, err := s.Write(sent); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(s, back); err != nil {
		return 0, err
	}
	if !bytes.Equal(sent, back) {
		return 0, io.ErrUnexpectedEOF
	}
	return time.Since(start), nil
}
