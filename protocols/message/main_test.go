package message

import (
	"context"
	"log/slog"
	"testing"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/grpcstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A pair is a host that takes messages and one that sends them, over a network in memory.
type pair struct {
	taker, sender corehost.Host
	server        *grpcstream.Server
	channel       *grpcstream.Channel // the sender's
}

// connect starts both. What register registers is what the taker serves.
func connect(t *testing.T, register func(grpc.ServiceRegistrar)) (p *pair, stop func()) {
	t.Helper()
	net, err := mocknet.FullMeshLinked(2)
	if err != nil {
		t.Fatal(err)
	}
	muted := slog.New(slog.DiscardHandler)
	p = &pair{taker: net.Hosts()[0], sender: net.Hosts()[1], server: grpcstream.NewServer(grpcstream.ServerConfig{Logger: muted})}
	register(p.server)
	if err := p.server.Start(p.taker); err != nil {
		t.Fatal(err)
	}
	if p.channel, err = grpcstream.NewChannel(p.sender, grpcstream.ChannelConfig{Logger: muted}); err != nil {
		t.Fatal(err)
	}
	return p, func() {
		_ = p.channel.Close()
		_ = p.server.Shutdown(context.Background()) //nolint:usetesting // the test's context may have ended
		_ = net.Close()
	}
}

// to returns the connection to the taker.
func (p *pair) to() grpc.ClientConnInterface { return p.channel.Peer(p.taker.ID().String()) }

// taking connects a pair whose taker has the handlers that handle adds.
func taking(t *testing.T, handle func(*Router)) *pair {
	t.Helper()
	r := NewRouter()
	handle(r)
	p, stop := connect(t, func(s grpc.ServiceRegistrar) { Register(s, r) })
	t.Cleanup(stop)
	return p
}

// echo answers with what it got.
func echo[M any](_ context.Context, _ peer.ID, m M) (M, error) { return m, nil }
