package host

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"
)

// stopHooks is the life of a host of which only the end is of interest.
type stopHooks []fx.Hook

func (s *stopHooks) Append(h fx.Hook) { *s = append(*s, h) }

// TestMain looks for the goroutines of a socket.
func TestQUIC_ADialThatComesAfterTheEndOpensNoSocket(t *testing.T) {
	var life stopHooks
	m, err := newQUICManager(quic.StatelessResetKey{}, quic.TokenGeneratorKey{}, &network.NullResourceManager{}, &life)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range life {
		if err := h.OnStop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dead := &tls.Config{} //nolint:gosec // no handshake begins
	_, err = m.DialQUIC(ctx, ma.StringCast("/ip4/127.0.0.1/udp/1/quic-v1"), dead, nil)
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v, want one that it is closed", err)
	}
}
