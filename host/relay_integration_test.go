package host_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
)

// wan returns a host that is to be reached through relays.
func wan(t *testing.T, cfg host.Config) corehost.Host {
	t.Helper()
	cfg.Listen, cfg.WAN = []string{loopback}, true
	return newHost(t, cfg)
}

// through returns h's address through the relay.
func through(t *testing.T, relay, h corehost.Host) peer.AddrInfo {
	t.Helper()
	a := addrsOf(relay, ma.P_QUIC_V1)[0].Encapsulate(ma.StringCast("/p2p/" + relay.ID().String() + "/p2p-circuit"))
	return peer.AddrInfo{ID: h.ID(), Addrs: []ma.Multiaddr{a}}
}

func infoOf(h corehost.Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }

// reserve makes h reachable through the relay.
func reserve(t *testing.T, relay, h corehost.Host) *client.Reservation {
	t.Helper()
	r, err := client.Reserve(t.Context(), h, infoOf(relay))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// dial connects from to a peer at exactly its addresses.
func dial(t *testing.T, from corehost.Host, to peer.AddrInfo) (network.Conn, error) {
	t.Helper()
	from.Peerstore().AddAddrs(to.ID, to.Addrs, peerstore.TempAddrTTL)
	return from.Network().DialPeer(t.Context(), to.ID)
}

func TestRelay_Carries(t *testing.T) {
	metrics := prometheus.NewRegistry()
	relay := newHost(t, host.Config{Listen: []string{loopback}, Relay: &host.RelayConfig{Metrics: metrics}})
	a, b := wan(t, host.Config{}), wan(t, host.Config{})
	r := reserve(t, relay, b)
	if d := host.DefaultRelay(); r.LimitDuration != d.Duration || r.LimitData != uint64(d.Data) {
		t.Errorf("limits %v and %d", r.LimitDuration, r.LimitData)
	}
	if len(r.Addrs) == 0 {
		t.Error("the relay names no address of its own: private ones must do inside a site")
	}
	if left := time.Until(r.Expiration); left < time.Hour {
		t.Errorf("reserved for %v", left)
	}
	c, err := dial(t, a, through(t, relay, b))
	if err != nil {
		t.Fatal(err)
	}
	if !c.Stat().Limited {
		t.Error("the connection does not say that it is relayed")
	}
	ctx := network.WithAllowLimitedConn(t.Context(), "test")
	if r := <-ping.Ping(ctx, a, b.ID()); r.Error != nil {
		t.Error(r.Error)
	}
	families, err := metrics.Gather()
	if err != nil || len(families) == 0 {
		t.Errorf("%d metrics, error %v", len(families), err)
	}
}

// refusals collects what a host says it refused.
type refusals struct {
	mu  sync.Mutex
	all []host.Refusal
}

func (r *refusals) add(one host.Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, one)
}

// of returns the reasons for which a peer was refused.
func (r *refusals) of(p peer.ID) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, one := range r.all {
		if one.Peer == p {
			out = append(out, one.Reason)
		}
	}
	return out
}

// Threat T19: an open relay is a free proxy.
func TestRelay_CarriesOnlyThoseOfTheAllowList(t *testing.T) {
	member, other, carrier := wan(t, host.Config{}), wan(t, host.Config{}), wan(t, host.Config{})
	stranger := wan(t, host.Config{})
	var refused refusals
	relay := newHost(t, host.Config{
		Listen:  []string{loopback},
		Relay:   &host.RelayConfig{},
		Allow:   only(t, member.ID(), other.ID()),
		Relays:  []peer.ID{carrier.ID()},
		Refused: refused.add,
	})
	reserve(t, relay, member)

	if _, err := client.Reserve(t.Context(), stranger, infoOf(relay)); err == nil {
		t.Error("a stranger has a reservation")
	}
	if _, err := dial(t, stranger, through(t, relay, member)); err == nil {
		t.Error("a stranger is carried")
	}
	if got := refused.of(stranger.ID()); len(got) == 0 || !strings.Contains(got[0], "connection: not on the allow list") {
		t.Errorf("the stranger's refusals: %q", got)
	}
	if protos, err := stranger.Peerstore().GetProtocols(relay.ID()); err != nil || len(protos) > 0 {
		t.Errorf("the stranger learned %v, error %v", protos, err)
	}

	// One that may be connected because it carries for the relay is not carried for that.
	_, err := client.Reserve(t.Context(), carrier, infoOf(relay))
	var denied client.ReservationError
	if !errors.As(err, &denied) || denied.Status != pb.Status_PERMISSION_DENIED {
		t.Errorf("the carrier's reservation: error %v", err)
	}
	if _, err := dial(t, carrier, through(t, relay, member)); err == nil || !strings.Contains(err.Error(), "PERMISSION_DENIED") {
		t.Errorf("the carrier's connection: error %v", err)
	}
	if got := refused.of(carrier.ID()); !slices.Equal(got, []string{"reservation: not on the allow list", "relayed connection: not on the allow list"}) {
		t.Errorf("the carrier's refusals: %q", got)
	}

	if _, err := dial(t, other, through(t, relay, member)); err != nil {
		t.Errorf("a member is not carried: %v", err)
	}
}

func TestRelay_ALimitNamesItself(t *testing.T) {
	relay := newHost(t, host.Config{Listen: []string{loopback}, Relay: &host.RelayConfig{Circuits: 1, Reservations: 2}})
	a, b, c := wan(t, host.Config{}), wan(t, host.Config{}), wan(t, host.Config{})
	reserve(t, relay, b)
	reserve(t, relay, c)
	if _, err := dial(t, a, through(t, relay, b)); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t, a, through(t, relay, c)); err == nil || !strings.Contains(err.Error(), "RESOURCE_LIMIT_EXCEEDED") {
		t.Errorf("beyond the limit of relayed connections: error %v", err)
	}
	_, err := client.Reserve(t.Context(), a, infoOf(relay))
	var full client.ReservationError
	if !errors.As(err, &full) || full.Status != pb.Status_RESERVATION_REFUSED {
		t.Errorf("beyond the limit of reservations: error %v", err)
	}
}

func TestRelay_NegativeLimit(t *testing.T) {
	for _, r := range []host.RelayConfig{{Duration: -1}, {Data: -1}, {Reservations: -1}, {ReservationsPerIP: -1}, {Circuits: -1}} {
		if h, err := host.New(host.Config{Relay: &r}); err == nil {
			_ = h.Close()
			t.Errorf("%+v is taken", r)
		}
	}
}

// Threat T29: being connected is not being trusted. What a carrier may call is the caller's list to decide, see package
// p2p.
func TestGate_ANamedRelayIsConnectedThoughUnlisted(t *testing.T) {
	relay := newHost(t, host.Config{Listen: []string{loopback}})
	member, stranger := wan(t, host.Config{}), wan(t, host.Config{})
	h := wan(t, host.Config{Allow: only(t, member.ID()), Relays: []peer.ID{relay.ID()}})
	if err := h.Connect(t.Context(), infoOf(relay)); err != nil {
		t.Errorf("to the relay: %v", err)
	}
	_ = h.Network().ClosePeer(relay.ID())
	if err := relay.Connect(t.Context(), infoOf(h)); err != nil {
		t.Errorf("from the relay: %v", err)
	}
	if err := h.Connect(t.Context(), infoOf(stranger)); err == nil {
		t.Error("connected to a stranger")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_ = stranger.Connect(ctx, infoOf(h))
	if h.Network().Connectedness(stranger.ID()) == network.Connected {
		t.Error("connected by a stranger")
	}
}

func TestAddrs_ARelayedOneIsTheHostsAtOnce(t *testing.T) {
	relay := newHost(t, host.Config{Listen: []string{loopback}, Relay: &host.RelayConfig{}})
	h, other := wan(t, host.Config{}), wan(t, host.Config{})
	told, err := other.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = told.Close() }()
	if err := other.Connect(t.Context(), infoOf(h)); err != nil {
		t.Fatal(err)
	}
	says, err := h.EventBus().Emitter(new(event.EvtAutoRelayAddrsUpdated), eventbus.Stateful)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = says.Close() }()
	within := time.After(20 * time.Second)
	for _, addrs := range [][]ma.Multiaddr{through(t, relay, h).Addrs, nil} {
		if err := says.Emit(event.EvtAutoRelayAddrsUpdated{RelayAddrs: addrs}); err != nil {
			t.Fatal(err)
		}
		for heard := false; !heard; {
			select {
			case e := <-told.Out():
				identified, ok := e.(event.EvtPeerIdentificationCompleted)
				heard = ok && slices.ContainsFunc(recorded(t, identified.SignedPeerRecord), addr.Relayed) == (len(addrs) > 0)
			case <-within:
				t.Fatalf("identify tells no signed record with %v", addrs)
			}
		}
		if slices.ContainsFunc(host.Addrs(h), addr.Relayed) != (len(addrs) > 0) {
			t.Errorf("the host's addresses are %v, want %v among them", host.Addrs(h), addrs)
		}
	}
}

// recorded returns the addresses of a signed record.
func recorded(t *testing.T, e *record.Envelope) []ma.Multiaddr {
	t.Helper()
	r, err := e.Record()
	if err != nil {
		t.Fatal(err)
	}
	p, ok := r.(*peer.PeerRecord)
	if !ok {
		t.Fatalf("record %T", r)
	}
	return p.Addrs
}
