package discovery

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

// pingProtocol is libp2p's: 32 bytes that come back. https://github.com/libp2p/specs/blob/master/ping/ping.md
const (
	pingProtocol protocol.ID = "/ipfs/ping/1.0.0"
	pingSize                 = 32
)

// ping looks whether each of the connections to a peer still works, and closes those that do not. One look per peer
// is under way at a time, except that a short one does not wait for a long one.
func (k *Keeper) ping(ctx context.Context, wg *sync.WaitGroup, p peer.ID, conns []network.Conn, timeout time.Duration) {
	k.mu.Lock()
	_, under := k.pinging[p]
	if !under {
		k.pinging[p] = struct{}{}
	}
	k.mu.Unlock()
	if under && timeout >= pingTimeout {
		return
	}
	wg.Go(func() {
		var each sync.WaitGroup
		for _, c := range conns {
			each.Go(func() { k.pingConn(ctx, c, timeout) })
		}
		each.Wait()
		if !under {
			k.mu.Lock()
			delete(k.pinging, p)
			k.mu.Unlock()
		}
	})
}

func (k *Keeper) pingConn(ctx context.Context, c network.Conn, timeout time.Duration) {
	if c.IsClosed() {
		return
	}
	pctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rtt, err := roundTrip(pctx, c)
	p := c.RemotePeer()
	switch {
	case ctx.Err() != nil:
	case pctx.Err() != nil:
		k.log.Debug("closing a connection that answers no ping", "peer", p, "addr", c.RemoteMultiaddr())
		_ = c.Close() // it is dead
	case err == nil:
		k.input(func(cr *core) {
			if e := cr.peers[p]; e != nil {
				e.rtt = rtt
			}
		})
	}
	// Any other error is an answer: the other end lives and has no ping, or too much to do.
}

// roundTrip measures the time that 32 bytes take to the other end of one connection and back.
func roundTrip(ctx context.Context, c network.Conn) (time.Duration, error) {
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
