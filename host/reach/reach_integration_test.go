package reach_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/reach"
	"github.com/lynn9388/p2p/internal/localport"
	"github.com/lynn9388/p2p/internal/poll"
)

// open returns a host on loopback sockets.
func open(t *testing.T, cfg host.Config) corehost.Host {
	t.Helper()
	if len(cfg.Listen) == 0 {
		cfg.Listen = []string{"127.0.0.1:0"}
	}
	h, err := host.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// keep has a host kept reachable until the test ends.
func keep(t *testing.T, h corehost.Host, cfg reach.Config) *reach.Reach {
	t.Helper()
	cfg.Network = "test"
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	r, err := reach.New(h, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func infoOf(h corehost.Host) peer.AddrInfo {
	return peer.AddrInfo{ID: h.ID(), Addrs: h.Network().ListenAddresses()}
}

func newKey(t *testing.T) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestReach_OverTCPAndQUIC(t *testing.T) {
	key := newKey(t)
	port, err := localport.Free() // it comes back there
	if err != nil {
		t.Fatal(err)
	}
	relaying := host.Config{Identity: key, Listen: []string{"127.0.0.1:" + port}, Relay: &host.RelayConfig{}}
	relay := open(t, relaying)
	info := infoOf(relay)
	info.Addrs = slices.DeleteFunc(info.Addrs, relayedAddr)
	a := open(t, host.Config{WAN: true, Relays: []peer.ID{relay.ID()}})
	b := open(t, host.Config{WAN: true, Relays: []peer.ID{relay.ID()}})
	ra, rb := keep(t, a, reach.Config{Relays: []peer.AddrInfo{info}}), keep(t, b, reach.Config{Relays: []peer.AddrInfo{info}})
	both := func(r *reach.Reach) func() string {
		return func() string {
			s := r.Status().Relays[0]
			if !s.Reserved || strings.Join(s.Connected, " ") != "quic tcp" || s.RTT == 0 || s.LastError != "" {
				return fmt.Sprintf("%+v", s)
			}
			return ""
		}
	}
	poll.Until(t, 10*time.Second, both(ra))
	poll.Until(t, 10*time.Second, both(rb))
	if s := ra.Status(); s.Mapping != reach.MappingNone || len(s.Circuits) != 2 {
		t.Errorf("%+v", s)
	}

	ctx := network.WithAllowLimitedConn(t.Context(), "test")
	if err := a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: circuits(b)}); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, 10*time.Second, poll.Not("a direct connection", func() bool { return direct(a, b) && direct(b, a) }))
	t.Logf("%+v", ra.Attempts(b.ID()))

	if err := relay.Close(); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, 10*time.Second, poll.Not("its end is noticed", func() bool {
		s := ra.Status().Relays[0]
		return !s.Reserved && len(s.Connected) == 0 && strings.Contains(s.LastError, "refused")
	}))
	open(t, relaying)
	t.Logf("reachable after %v", poll.Until(t, 10*time.Second, both(ra)))
	if !direct(a, b) {
		t.Error("the direct connection is gone")
	}
}
