package p2p

import (
	"context"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/protocols/neighbors"
	"github.com/lynn9388/p2p/protocols/nodeinfo"
	"github.com/lynn9388/p2p/protocols/pathinfo"
)

// Version is the version of this library, which a node tells its peers.
const Version = "0.1.0-dev"

// newServer makes the node's gRPC server with the services that every node has.
func newServer(n *Node, c *config) *grpcstream.Server {
	s := grpcstream.NewServer(grpcstream.ServerConfig{
		Network:           c.network,
		Tags:              c.tags,
		Authorize:         n.access.decide,
		WithoutReflection: c.noReflection,
		Options:           c.serverOptions,
		Metrics:           c.metrics,
		Logger:            c.logger,
	})
	nodeinfo.Register(s, selfInfo{n})
	asker := func(ctx context.Context) (peer.ID, bool) {
		p, ok := grpcstream.PeerFromContext(ctx)
		return p.ID, ok
	}
	neighbors.Register(s, neighbors.Config{Source: neighbors.SourceFunc(n.records), Catalog: n.catalog, Asker: asker})
	pathinfo.Register(s, onlooker{n}, asker)
	return s
}

// selfInfo is what the nodeinfo service tells of a node.
type selfInfo struct{ node *Node }

func (s selfInfo) Info() nodeinfo.Info {
	info := nodeinfo.Info{Name: s.node.config.name, Version: Version}
	if r, err := s.node.live(); err == nil {
		info.Start, info.Addrs = r.begun, host.Addrs(r.host)
	}
	return info
}

func (s selfInfo) GetServiceInfo() map[string]grpc.ServiceInfo { return s.node.server.GetServiceInfo() }

func (s selfInfo) Stats() []grpcstream.MethodStats { return s.node.server.Stats() }

// Neighbors is the same while the node closes: who watches shall hear that it closes, not that nobody is left.
func (s selfInfo) Neighbors() []*nodeinfo.Neighbor {
	r := s.node.begun()
	if r == nil {
		return nil
	}
	var out []*nodeinfo.Neighbor
	for _, id := range r.keeper.Neighbors() {
		if p, ok := r.keeper.Peer(id); ok {
			info := r.peerInfo(p)
			out = append(out, &nodeinfo.Neighbor{Id: id.String(), Name: info.Name, Services: info.Services})
		}
	}
	return out
}

func (s selfInfo) Changes(ctx context.Context) <-chan struct{} {
	r := s.node.begun()
	if r == nil {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	return r.events.Changes(ctx)
}

// The agent version that identify carries: "p2p/<version> <name>".
const agentPrefix = "p2p/"

func userAgent(name string) string { return strings.TrimSpace(agentPrefix + Version + " " + name) }

// parseAgent reads version and name from a peer's agent version; both are empty when it is another program.
func parseAgent(agent string) (version, name string) {
	rest, ok := strings.CutPrefix(agent, agentPrefix)
	if !ok {
		return "", ""
	}
	version, name, _ = strings.Cut(rest, " ")
	return version, name
}

var _ grpc.ServiceRegistrar = (*grpcstream.Server)(nil)
