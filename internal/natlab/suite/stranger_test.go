//go:build linux

package suite

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/discovery/dht"
	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/reach"
)

// newStranger is a libp2p host that has nothing of ours.
func newStranger(key crypto.PrivKey) (corehost.Host, error) {
	return libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.EnableRelay())
}

// newCarrier is a relay that carries no more than so many bytes, and is no node.
func newCarrier(s setup) (corehost.Host, error) {
	key, err := crypto.UnmarshalPrivateKey(s.Key)
	if err != nil {
		return nil, err
	}
	h, err := host.New(host.Config{Identity: key, WAN: true, Relay: &host.RelayConfig{Data: s.Carry}})
	if err != nil {
		return nil, err
	}
	return h, host.Listen(h, s.Listen)
}

// Pry is an order to a stranger to learn of a relay, and through it of a node, what can be learnt.
type Pry struct {
	Network string
	Relay   string   // its ID
	Addrs   []string // of the relay
	Member  string   // the ID of a node that is reachable through the relay
}

// Pried is what a stranger has learnt.
type Pried struct {
	Protocols []string // that identify told
	Known     []string // addresses that were told beside those dialed
	Agent     string
	Opened    []string // protocols on which a stream could be used
	Reserved  bool
	Circuit   bool // connected to the member through the relay
	Errors    []string
}

// Pry tries each address by itself.
func (o orders) Pry(in Pry, out *Pried) error {
	key, err := crypto.UnmarshalPrivateKey(o.p.setup.Key)
	if err != nil {
		return err
	}
	relay, err := peer.Decode(in.Relay)
	if err != nil {
		return err
	}
	member, err := peer.Decode(in.Member)
	if err != nil {
		return err
	}
	for _, text := range in.Addrs {
		at, err := ma.NewMultiaddr(text)
		if err != nil {
			return err
		}
		h, err := newStranger(key)
		if err != nil {
			return err
		}
		pry(h, peer.AddrInfo{ID: relay, Addrs: []ma.Multiaddr{at}}, member, in.Network, out)
		if err := h.Close(); err != nil {
			return err
		}
	}
	return nil
}

func pry(h corehost.Host, relay peer.AddrInfo, member peer.ID, name string, out *Pried) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	note := func(what string, err error) bool {
		if err != nil {
			out.Errors = append(out.Errors, fmt.Sprintf("%v: %s: %v", relay.Addrs[0], what, err))
		}
		return err == nil
	}
	note("connect", h.Connect(ctx, relay))
	for _, p := range []protocol.ID{
		identify.ID, identify.IDPush, ping.ID, proto.ProtoIDv2Hop, proto.ProtoIDv2Stop, "/libp2p/autonat/2/dial-request", "/libp2p/dcutr",
		grpcstream.TunnelProtocol(name), dht.Protocol(name), reach.Protocol(name), "/libp2p/grpc/1.0.0", "/meshsub/1.1.0",
	} {
		if err := use(ctx, h, relay.ID, p); note(string(p), err) {
			out.Opened = append(out.Opened, string(p))
		}
	}
	_, err := client.Reserve(ctx, h, relay)
	out.Reserved = note("reserve", err) || out.Reserved
	through, err := ma.NewMultiaddr(relay.Addrs[0].String() + "/p2p/" + relay.ID.String() + "/p2p-circuit")
	if note("address", err) {
		err = h.Connect(network.WithAllowLimitedConn(ctx, "pry"), peer.AddrInfo{ID: member, Addrs: []ma.Multiaddr{through}})
		out.Circuit = note("circuit", err) || out.Circuit
	}
	protocols, _ := h.Peerstore().GetProtocols(relay.ID)
	for _, p := range protocols {
		out.Protocols = append(out.Protocols, string(p))
	}
	if agent, err := h.Peerstore().Get(relay.ID, "AgentVersion"); err == nil {
		out.Agent = fmt.Sprint(agent)
	}
	for _, id := range h.Peerstore().PeersWithAddrs() {
		for _, a := range h.Peerstore().Addrs(id) {
			if id != h.ID() && !slices.ContainsFunc(relay.Addrs, a.Equal) && !(id == member && a.Equal(through)) {
				out.Known = append(out.Known, id.String()+" "+a.String())
			}
		}
	}
}

// use opens a stream and waits for an answer to the choice of the protocol.
func use(ctx context.Context, h corehost.Host, p peer.ID, id protocol.ID) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	s, err := h.NewStream(ctx, p, id)
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }()
	_ = s.SetDeadline(time.Now().Add(3 * time.Second))
	if id == identify.ID {
		_, err := s.Read(make([]byte, 1)) // it tells unasked
		return err
	}
	_, err = s.Write([]byte{1, 0})
	return err
}
