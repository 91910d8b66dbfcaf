// Package nodeinfo is the service in which every node tells what it is: p2p.nodeinfo.v1.NodeInfoService, defined in
// nodeinfo.proto.
//
// [Register] serves it from a [Node]. [Ping], [Get], [List], [Names], [Stats] and [Watch] call it and check the answer
// against the protocol's limits. What a node says of itself is a claim; only its peer ID, which the connection has proved,
// identifies it. The texts are returned as they came: clean them before they reach a log or a terminal.
package nodeinfo

import (
	"context"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/grpcstream"
)

// The protocol's limits. A server cuts its answers to them, a client refuses or cuts what exceeds them.
const (
	// MaxPayload is the longest payload of a ping, in bytes.
	MaxPayload = 4 << 10
	// MaxText is the longest name or version, in bytes.
	MaxText = 256
	// MaxAddrs is the largest number of addresses of a node.
	MaxAddrs = 64
	// MaxServices is the largest number of services of a node.
	MaxServices = 4096
	// MaxMethods is the largest number of methods of a service.
	MaxMethods = 1024
	// MaxStats is the largest number of methods with an account.
	MaxStats = 4096
	// MaxNeighbors is the largest number of neighbors that a watch tells of.
	MaxNeighbors = 256
	// MaxNeighborServices is the largest number of services of a neighbor that a watch tells of.
	MaxNeighborServices = 64
	// maxAnswer bounds an answer on the wire, in bytes.
	maxAnswer = 4 << 20
)

// An Info is what a node says of itself.
type Info struct {
	// Name is the name the node gave itself. Any node may claim any name.
	Name string
	// Version is the version of the node's software.
	Version string
	// Start is when the node started, by the node's own clock. It is zero when the node did not say.
	Start time.Time
	// Addrs are the addresses at which the node says it is reached.
	Addrs []ma.Multiaddr
}

// A Node is what [Register] serves from. Its methods are called concurrently, once for each request, and must not
// block.
type Node interface {
	// Info returns what the node says of itself now.
	Info() Info
	// GetServiceInfo returns the services the node serves, as grpc.Server's method of this name does.
	GetServiceInfo() map[string]grpc.ServiceInfo
	// Stats returns the account of the calls that the node served.
	Stats() []grpcstream.MethodStats
	// Neighbors returns the node's neighbors now and the services of their users. The result is the caller's.
	Neighbors() []*Neighbor
	// Changes returns a channel that holds a value when the result of Neighbors may be another than before. It holds
	// one at most, however much has changed, and is closed when the node closes. It is used until ctx ends.
	Changes(ctx context.Context) <-chan struct{}
}
