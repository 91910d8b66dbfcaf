package grpcstream

import (
	"context"
	"strings"
	"testing"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
)

// wantRelayed checks that an error has the reason, and names the relay.
func (w *wan) wantRelayed(t *testing.T, err error, want Reason) {
	t.Helper()
	wantReason(t, err, want)
	if !strings.Contains(err.Error(), w.relay.ID().String()) || strings.Contains(err.Error(), "stream reset") {
		t.Errorf("the error does not name the relay, or tells less than it knows: %v", err)
	}
}

// What a relay refuses is told at once, and not after the deadline. Only a peer that the relay does not know is waited for,
// like every one that is not known yet.
func TestRelay_Refuses(t *testing.T) {
	t.Run("a peer that does not come", func(t *testing.T) {
		acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
			ch := w.channel(ChannelConfig{})
			w.away()
			began := time.Now()
			_, err := askWho(t.Context(), ch.Peer(w.b.ID().String()), "x.A")
			w.wantRelayed(t, err, ReasonRelayRefused)
			if took := time.Since(began); took < defaultDiscoveryTimeout || took > defaultDiscoveryTimeout+time.Second {
				t.Errorf("it took %v", took)
			}
		})
	})
	t.Run("a peer that comes a moment later", func(t *testing.T) {
		acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
			asked := 0
			ch := w.channel(ChannelConfig{FindPeer: func(ctx context.Context, _ peer.ID) ([]ma.Multiaddr, error) {
				asked++
				<-ctx.Done()
				return nil, ctx.Err()
			}})
			w.away()
			time.AfterFunc(time.Second, w.reserve)
			began := time.Now()
			if _, err := askWho(t.Context(), ch.Peer(w.b.ID().String()), "x.A"); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 2*time.Second+findBrief || asked == 0 {
				t.Errorf("it took %v, and it was looked for %d times", took, asked)
			}
		})
	})
	t.Run("a peer that it has lost", func(t *testing.T) {
		acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
			ch := w.channel(ChannelConfig{})
			w.net.Unplug(w.b)
			_, err := askWho(t.Context(), ch.Peer(w.b.ID().String()), "x.A")
			wantReason(t, err, ReasonNoRoute)
		})
	})
	t.Run("nobody, for it is gone", func(t *testing.T) {
		acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
			w.net.Unplug(w.relay)
			_, err := askWho(t.Context(), w.channel(ChannelConfig{}).Peer(w.b.ID().String()), "x.A")
			w.wantRelayed(t, err, ReasonNoRoute)
		})
	})
	t.Run("one circuit too many", func(t *testing.T) {
		acrossWAN(t, host.RelayConfig{Circuits: 1}, func(t *testing.T, w *wan) {
			other := w.net.HostWith(host.Config{WAN: true})
			w.occupy(other)
			_, err := askWho(t.Context(), w.channel(ChannelConfig{}).Peer(w.b.ID().String()), "x.A")
			w.wantRelayed(t, err, ReasonRelayRefused)
		})
	})
	t.Run("a peer that is not on its list", func(t *testing.T) {
		acrossRelay(t, closedRelay, func(t *testing.T, w *wan) {
			_, err := askWho(t.Context(), w.channel(ChannelConfig{}).Peer(w.b.ID().String()), "x.A")
			w.wantRelayed(t, err, ReasonRelayRefused)
		})
	})
}

// A limit of the relay that is reached is named, for unary calls and streams.
func TestRelay_Limits(t *testing.T) {
	for name, limits := range map[string]host.RelayConfig{
		"data": {Data: 128 << 10},
		"time": {Duration: 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			acrossWAN(t, limits, func(t *testing.T, w *wan) {
				ch := w.channel(ChannelConfig{})
				peer := ch.Peer(w.b.ID().String())
				stream := openChat(t, peer)
				hang := make(chan error, 1)
				go func() { hang <- peer.Invoke(t.Context(), "/x.A/Hang", nothing(), nothing()) }()
				if limits.Data > 0 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					w.wantRelayed(t, peer.Invoke(ctx, "/x.A/Who", wrapperspb.String(strings.Repeat("x", 256<<10)), nothing()), ReasonRelayLimit)
				}
				w.wantRelayed(t, stream.RecvMsg(nothing()), ReasonRelayLimit)
				w.wantRelayed(t, <-hang, ReasonRelayLimit)
				if _, err := askWho(t.Context(), peer, "x.A"); err != nil {
					t.Errorf("the next call: %v", err)
				}
			})
		})
	}
}

// A relay that is gone is told as such.
func TestRelay_IsGone(t *testing.T) {
	acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
		stream := openChat(t, w.channel(ChannelConfig{}).Peer(w.b.ID().String()))
		if err := w.relay.Close(); err != nil {
			t.Fatal(err)
		}
		w.wantRelayed(t, stream.RecvMsg(nothing()), ReasonNoRoute)
	})
}

// That a relay could not be dialed a moment ago is no reason not to try now.
func TestRelay_IsBackRightAfterADialFailed(t *testing.T) {
	acrossWAN(t, host.RelayConfig{}, func(t *testing.T, w *wan) {
		n, ok := w.a.Network().(*swarm.Swarm)
		if !ok {
			t.Fatalf("%T", w.a.Network())
		}
		for _, at := range host.Addrs(w.relay) {
			n.Backoff().AddBackoff(w.relay.ID(), at)
		}
		if _, err := askWho(t.Context(), w.channel(ChannelConfig{}).Peer(w.b.ID().String()), "x.A"); err != nil {
			t.Error(err)
		}
	})
}

// closedRelay carries for nobody.
func closedRelay(n *hosttest.Network) (h corehost.Host, end func()) {
	h = n.HostWith(host.Config{WAN: true})
	r, err := relay.New(h, relay.WithACL(nobody{}), relay.WithReservationAddressFilter(func(ma.Multiaddr) bool { return true }))
	if err != nil {
		panic(err)
	}
	return h, func() { _ = r.Close() }
}

type nobody struct{}

func (nobody) AllowReserve(peer.ID, ma.Multiaddr) bool          { return true }
func (nobody) AllowConnect(peer.ID, ma.Multiaddr, peer.ID) bool { return false }
