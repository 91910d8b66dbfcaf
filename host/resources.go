package host

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	connrate "github.com/libp2p/go-libp2p/x/rate"
	"golang.org/x/time/rate"
)

// What a host may have open at least, whatever libp2p finds right for a small machine.
const (
	// Without these a machine with 1 GiB refuses the 65th connection and the 33rd handshake of a network that starts
	// all at once.
	minConns      = 256
	minHandshakes = 128

	// peerStreams is how many streams a peer may open: a stream may hold up to its window before it is read, and libp2p
	// counts a sixteenth of ours.
	peerStreams = 128

	// peerConns is how many connections and dials there may be to one peer: one over TCP, one over QUIC, a few that are
	// relayed, and the dials of all its addresses that a punched hole begins with.
	peerConns = 32
)

// What a relay may have open beyond that.
const (
	// An office behind one public address: two connections of each of its nodes, all at once in the morning.
	relayConnsPerIP = 512
	relayConnRate   = 20 // new connections a second
	relayConnBurst  = 256

	// relayConnsEach is how many connections a relay reckons with for each reservation: TCP, QUIC, and one that is going
	// while another comes.
	relayConnsEach = 3

	// relayHandshakes is how many may be under way at once, and how many identify streams.
	relayHandshakes = 512

	// relayCircuits is how many relayed connections there may be in all, of two streams each.
	relayCircuits = 4096

	// relayStreamsEach is how many streams a relay reckons with for each connection, beside those of relayed connections:
	// the tunnel, identify, pings, the exchange of neighbors.
	relayStreamsEach = 8

	// relayMemory is what the streams of a relay may hold at least.
	relayMemory = 512 << 20
)

// localNetworks are the networks that libp2p's own limits by address do not apply to: loopback because it is trusted
// with the system's limits, the others because [limiter] counts them.
func localNetworks() (four, six []netip.Prefix) {
	for _, s := range []string{"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"} {
		four = append(four, netip.MustParsePrefix(s))
	}
	for _, s := range []string{"::1/128", "fc00::/7", "fe80::/10"} {
		six = append(six, netip.MustParsePrefix(s))
	}
	return four, six
}

// newResourceManager returns a manager with limits for this machine, and for a relay unless carries is nil.
func newResourceManager(metrics bool, carries *RelayConfig) (network.ResourceManager, error) {
	limits := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&limits)
	raiseConns(&limits.SystemBaseLimit, minConns)
	raiseConns(&limits.TransientBaseLimit, minHandshakes)
	raiseConns(&limits.PeerBaseLimit, peerConns)
	limits.PeerBaseLimit.StreamsInbound = peerStreams
	limits.PeerLimitIncrease.StreamsInbound = 0
	if carries != nil {
		raiseForRelay(&limits, *carries)
	}
	opts := limitsByAddress(carries != nil)
	if !metrics {
		opts = append(opts, rcmgr.WithMetricsDisabled())
	}
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.AutoScale()), opts...)
	if err != nil {
		return nil, err
	}
	inner, ok := rm.(manager)
	if !ok {
		return nil, fmt.Errorf("resource manager %T shows no state", rm)
	}
	return &limiter{
		manager:    inner,
		addresses:  map[netip.Addr]*address{},
		unverified: rate.NewLimiter(privateUnverified, privateUnverified),
	}, nil
}

// raiseConns raises the connections of a limit, and the files they need, to conns in each direction.
func raiseConns(b *rcmgr.BaseLimit, conns int) {
	b.ConnsInbound, b.ConnsOutbound, b.Conns = max(b.ConnsInbound, conns), max(b.ConnsOutbound, conns), max(b.Conns, 2*conns)
	b.FD = max(b.FD, conns)
}

// raiseStreams raises the streams of a limit to streams in each direction.
func raiseStreams(b *rcmgr.BaseLimit, streams int) {
	b.StreamsInbound, b.StreamsOutbound = max(b.StreamsInbound, streams), max(b.StreamsOutbound, streams)
	b.Streams = max(b.Streams, 2*streams)
}

// raiseForRelay raises the limits to what a relay's own allow.
func raiseForRelay(l *rcmgr.ScalingLimitConfig, r RelayConfig) {
	conns := minConns + relayConnsEach*r.Reservations
	raiseConns(&l.SystemBaseLimit, conns)
	raiseStreams(&l.SystemBaseLimit, relayCircuits+relayStreamsEach*conns)
	l.SystemBaseLimit.Memory = max(l.SystemBaseLimit.Memory, relayMemory)
	raiseConns(&l.TransientBaseLimit, relayHandshakes)
	raiseStreams(&l.TransientBaseLimit, relayHandshakes)
	raiseStreams(&l.PeerBaseLimit, peerStreams+r.Circuits)

	all := rcmgr.BaseLimit{Memory: relayCircuits * 4 * relayBuffer}
	raiseStreams(&all, relayCircuits)
	one := rcmgr.BaseLimit{Memory: int64(r.Circuits+1) * 4 * relayBuffer}
	raiseStreams(&one, r.Circuits+1) // and the reservation
	l.AddServiceLimit(relay.ServiceName, all, rcmgr.BaseLimitIncrease{})
	l.AddServicePeerLimit(relay.ServiceName, one, rcmgr.BaseLimitIncrease{})
	for _, id := range []protocol.ID{circuit.ProtoIDv2Hop, circuit.ProtoIDv2Stop} {
		l.AddProtocolLimit(id, all, rcmgr.BaseLimitIncrease{})
		l.AddProtocolPeerLimit(id, one, rcmgr.BaseLimitIncrease{})
	}

	brief := rcmgr.BaseLimit{Memory: 64 << 20}
	raiseStreams(&brief, relayHandshakes)
	l.AddServiceLimit(identify.ServiceName, brief, rcmgr.BaseLimitIncrease{})
	l.AddServiceLimit(autonatv2.ServiceName, brief, rcmgr.BaseLimitIncrease{})
	for _, id := range []protocol.ID{identify.ID, identify.IDPush, autonatv2.DialProtocol} {
		l.AddProtocolLimit(id, brief, rcmgr.BaseLimitIncrease{})
	}
}

// limitsByAddress returns libp2p's own limits by address, which are for public ones: as they are, or a relay's.
func limitsByAddress(relays bool) []rcmgr.Option {
	four, six := localNetworks()
	unlimited := func(networks []netip.Prefix) (conns []rcmgr.NetworkPrefixLimit) {
		for _, p := range networks {
			conns = append(conns, rcmgr.NetworkPrefixLimit{Network: p, ConnCount: math.MaxInt})
		}
		return conns
	}
	var exempt []connrate.PrefixLimit
	for _, p := range append(append([]netip.Prefix{}, four...), six...) {
		exempt = append(exempt, connrate.PrefixLimit{Prefix: p})
	}
	out := []rcmgr.Option{rcmgr.WithNetworkPrefixLimit(unlimited(four), unlimited(six))}
	limiter := &connrate.Limiter{NetworkPrefixLimits: exempt, SubnetRateLimiter: connrate.SubnetLimiter{
		IPv4SubnetLimits: []connrate.SubnetLimit{{PrefixLength: 32, Limit: connrate.Limit{RPS: 0.2, Burst: 16}}},
		IPv6SubnetLimits: []connrate.SubnetLimit{
			{PrefixLength: 56, Limit: connrate.Limit{RPS: 0.2, Burst: 16}},
			{PrefixLength: 48, Limit: connrate.Limit{RPS: 0.5, Burst: 80}},
		},
		GracePeriod: time.Minute,
	}}
	if relays { // a site has a /56 or a /48 of IPv6
		usual := connrate.Limit{RPS: relayConnRate, Burst: relayConnBurst}
		limiter.SubnetRateLimiter.IPv4SubnetLimits = []connrate.SubnetLimit{{PrefixLength: 32, Limit: usual}}
		limiter.SubnetRateLimiter.IPv6SubnetLimits = []connrate.SubnetLimit{{PrefixLength: 56, Limit: usual}, {PrefixLength: 48, Limit: usual}}
		out = append(out, rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: relayConnsPerIP}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: relayConnsPerIP}, {PrefixLength: 48, ConnCount: 2 * relayConnsPerIP}},
		))
	}
	return append(out, rcmgr.WithConnRateLimiters(limiter))
}
