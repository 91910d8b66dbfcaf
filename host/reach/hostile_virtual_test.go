package reach_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/host/reach"
)

// ask writes a message on a stream of the exchange and returns what comes back within a minute.
func (w *world) ask(from *node, to peer.ID, message []byte) ([]byte, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(w.ctx, "test"), time.Minute)
	defer cancel()
	s, err := from.NewStream(ctx, to, reach.Protocol("test"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Reset() }()
	_ = s.SetDeadline(time.Now().Add(time.Minute))
	if _, err := s.Write(message); err != nil {
		return nil, err
	}
	return io.ReadAll(s)
}

func TestReach_HostileMessages(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.node(w.Router(hosttest.PortRestricted))
		w.reserved(a)
		evil := &node{Host: w.Router(hosttest.PortRestricted).HostWith(host.Config{WAN: true, Relays: []peer.ID{w.relays[0].ID()}})}
		w.call(evil, a)
		for name, message := range map[string][]byte{
			"junk":       bytes.Repeat([]byte{0x0f}, 100),
			"too long":   append([]byte{0xff, 0xff, 0x03}, make([]byte, 1<<16)...),
			"a part":     {100, 1, 2, 3},
			"not a word": {},
			"no start":   {0},
		} {
			begun := time.Now()
			got, err := w.ask(evil, a.ID(), message)
			if errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) > 15*time.Second {
				t.Errorf("%s: the stream is left open, %v after %v", name, err, time.Since(begun))
			}
			if name != "no start" && len(got) > 0 {
				t.Errorf("%s: answered %x", name, got)
			}
		}
		if direct(a, evil) {
			t.Error("direct")
		}
		// An honest exchange is served afterwards.
		r := w.run(evil.Host, reach.Config{Network: "test", Relays: w.infos()})
		w.directly(a, r, 20*time.Second)
	})
}

func TestReach_AddressesAreToldOnlyToWhoIsAllowedAndRelayed(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		stranger := &node{Host: w.Router(hosttest.PortRestricted).HostWith(host.Config{WAN: true, Relays: []peer.ID{w.relays[0].ID()}})}
		h := w.Router(hosttest.Open).HostWith(host.Config{WAN: true, Relays: []peer.ID{w.relays[0].ID()}})
		allowed := false
		a := w.run(h, reach.Config{
			Network: "test", Relays: w.infos(), Logger: slog.New(slog.DiscardHandler),
			Allow: func(peer.ID) bool { return allowed },
		})
		w.reserved(a)
		w.call(stranger, a)
		empty := []byte{0} // an offer of nothing
		if got, err := w.ask(stranger, a.ID(), empty); err == nil || len(got) > 0 {
			t.Errorf("a stranger is told %x, %v", got, err)
		}
		<-time.After(time.Minute)
		if len(a.Attempts(stranger.ID())) > 0 || direct(a, stranger) {
			t.Errorf("tried with a stranger: %+v", a.Attempts(stranger.ID()))
		}
		if why := a.WhyRelayed(stranger.ID()); why != "it is not on the allow list: no addresses are exchanged with it" {
			t.Error(why)
		}
		allowed = true
		if got, _ := w.ask(stranger, a.ID(), empty); len(got) == 0 {
			t.Error("who is allowed is told nothing")
		}
		// On a direct connection there is nothing to exchange.
		if err := stranger.Connect(network.WithForceDirectDial(w.ctx, "test"), peer.AddrInfo{ID: a.ID(), Addrs: h.Network().ListenAddresses()}); err != nil {
			t.Fatal(err)
		}
		if got, err := w.ask(stranger, a.ID(), empty); err == nil || len(got) > 0 {
			t.Errorf("on a direct connection: %x, %v", got, err)
		}
	})
}

func TestReach_ARelayThatRefuses(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		none, err := host.NewAllowList("", w.Router(hosttest.Open).Host().ID())
		if err != nil {
			t.Fatal(err)
		}
		closed := w.Router(hosttest.Open).HostWith(host.Config{Relay: &host.RelayConfig{}, Allow: none})
		full := w.Router(hosttest.Open).HostWith(host.Config{Relay: &host.RelayConfig{Reservations: 1}})
		plain := w.Router(hosttest.Open).Host()
		w.relays = append(w.relays, full)
		first := w.node(w.Router(hosttest.PortRestricted))
		w.reserved(first)
		w.relays = append(w.relays, closed, plain)
		n := w.node(w.Router(hosttest.PortRestricted))
		for i, want := range []string{"it is full", "on its allow list", "it is no relay"} {
			w.says(n, i, want)
		}
		if s := n.Status(); len(s.Circuits) > 0 {
			t.Errorf("%v", s.Circuits)
		}
	})
}

func TestReach_AnotherPeerAnswersAtTheRelaysAddress(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		real := w.relays[0]
		wrong := w.infos()[0]
		wrong.ID = w.Host().ID()
		h := w.Router(hosttest.PortRestricted).HostWith(host.Config{WAN: true})
		n := w.run(h, reach.Config{Network: "test", Relays: []peer.AddrInfo{wrong}})
		w.says(n, 0, "another peer answers at "+"20.0.0.1:9388, "+real.ID().String())
	})
}

func TestNew_Refuses(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		h := w.Host()
		for name, cfg := range map[string]reach.Config{
			"no network":          {},
			"itself":              {Network: "x", Relays: []peer.AddrInfo{{ID: h.ID(), Addrs: h.Addrs()}}},
			"no ID":               {Network: "x", Relays: []peer.AddrInfo{{Addrs: h.Addrs()}}},
			"a relay at no place": {Network: "x", Relays: []peer.AddrInfo{{ID: w.relays[0].ID()}}},
			"no transport":        {Network: "x", Relays: []peer.AddrInfo{{ID: w.relays[0].ID(), Addrs: []ma.Multiaddr{ma.StringCast("/dnsaddr/relay.test")}}}},
		} {
			if _, err := reach.New(h, cfg); err == nil {
				t.Error(name)
			}
		}
		r, err := reach.New(h, reach.Config{Network: "x"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(w.ctx)
		cancel()
		changes := r.Changes(w.ctx)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
		if err := r.Run(ctx); err == nil {
			t.Error("it runs twice")
		}
		for range changes { // it is closed
		}
	})
}
