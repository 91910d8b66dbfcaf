package host

import (
	"fmt"
	"sync"

	"github.com/libp2p/go-libp2p/config"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
)

// How often a relay probes. libp2p's server allows 12 requests a minute of one peer and 60 of all; a relay serves a
// hundred nodes that start together, each with a few addresses.
const (
	probesPerMinute     = 1200
	peerProbesPerMinute = 30
	dataProbesPerMinute = 300 // those for which a peer sends data first
	peerProbesAtOnce    = 4
)

// dialerOf returns the configuration of the host that a relay probes with: the relay's transports and identity on
// ports of their own, so that a probe does not come from where the router already expects packets from. It listens
// nowhere and speaks no protocol.
func dialerOf(c *config.Config) *config.Config {
	reachable := network.ReachabilityPrivate
	return &config.Config{
		PeerKey:                         c.PeerKey,
		Transports:                      c.Transports,
		QUICReuse:                       c.QUICReuse,
		Muxers:                          c.Muxers,
		SecurityTransports:              c.SecurityTransports,
		Insecure:                        c.Insecure,
		PSK:                             c.PSK,
		DialRanker:                      RankDials,
		ResourceManager:                 &network.NullResourceManager{}, // the server bounds the requests
		ConnManager:                     &connmgr.NullConnMgr{},
		AutoNATConfig:                   config.AutoNATConfig{ForceReachability: &reachable},
		DisableIdentifyAddressDiscovery: true,
		DisablePing:                     true,
		DisableMetrics:                  true,
	}
}

// newProber starts the AutoNAT v2 server of n, for those whom the list allows.
func newProber(n *node, dialer *config.Config, allow *AllowList) (*autonatv2.AutoNAT, error) {
	ps, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	dialer.Peerstore = ps
	d, err := dialer.NewNode()
	if err != nil {
		_ = ps.Close()
		return nil, fmt.Errorf("host: start the prober: %w", err)
	}
	p, err := autonatv2.New(d, autonatv2.WithServerRateLimit(probesPerMinute, peerProbesPerMinute, dataProbesPerMinute, peerProbesAtOnce))
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("host: start the prober: %w", err)
	}
	if err := p.Start(&doorman{node: n, allow: allow}); err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("host: start the prober: %w", err)
	}
	n.RemoveStreamHandler(autonatv2.DialBackProtocol) // it asks for no probes itself
	return p, nil
}

// doorman is a host whose handlers serve only those whom the list allows: a peer that may be connected because it carries
// has no say in whom this host dials.
type doorman struct {
	*node
	allow *AllowList
}

// SetStreamHandler implements [corehost.Host].
func (d *doorman) SetStreamHandler(id protocol.ID, serve network.StreamHandler) {
	d.node.SetStreamHandler(id, func(s network.Stream) {
		if !d.visits.begin() {
			_ = s.Reset()
			return
		}
		defer d.visits.end()
		if p := s.Conn().RemotePeer(); !d.allow.Allows(p) {
			d.refuse(Refusal{p, s.Conn().RemoteMultiaddr(), network.DirInbound, "probe: not on the allow list"})
			_ = s.Reset()
			return
		}
		serve(s)
	})
}

// visits are the requests that are being served: libp2p's server does not wait for them when it is closed, and lets some
// rest for up to 3 s before it dials for them.
type visits struct {
	mu     sync.Mutex
	closed bool
	all    sync.WaitGroup
}

// begin tells whether one more may be served.
func (v *visits) begin() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.closed {
		v.all.Add(1)
	}
	return !v.closed
}

func (v *visits) end() { v.all.Done() }

// close waits for those that are being served.
func (v *visits) close() {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.all.Wait()
}
