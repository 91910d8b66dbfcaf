package host_test

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/virtual"
)

func TestPing_MeasuresOneConnection(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		n := hosttest.New(t)
		defer n.Close()
		a, b := n.Host(), n.Host()
		n.SetLatency(a, b, 30*time.Millisecond)
		if err := a.Connect(t.Context(), b.Peerstore().PeerInfo(b.ID())); err != nil {
			t.Fatal(err)
		}
		c := a.Network().ConnsToPeer(b.ID())[0]
		if rtt, err := host.Ping(t.Context(), c); err != nil || rtt < 60*time.Millisecond || rtt > 90*time.Millisecond {
			t.Errorf("%v, %v", rtt, err)
		}
		n.Cut(a, b)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := host.Ping(ctx, c); err == nil || time.Since(start) > 2*time.Second {
			t.Errorf("over a cut: %v after %v", err, time.Since(start))
		}
		if c.IsClosed() || a.Network().Connectedness(b.ID()) != network.Connected {
			t.Error("a ping closes no connection")
		}
	})
}
