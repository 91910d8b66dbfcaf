package grpcstream

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Health is what an instance says of its fitness to be called, by grpc.health.v1.
type Health string

// The values of Health. An instance without a tunnel, or of a service that was not called lately, is not asked.
const (
	HealthUnknown    Health = ""
	HealthServing    Health = "serving"
	HealthNotServing Health = "not serving"
)

// An Instance is a peer that offers a service, as the channel sees it at one moment.
type Instance struct {
	// Peer is who offers the service.
	Peer peer.ID
	// Tags are the peer's tags, sorted.
	Tags []string
	// Self says that it is the host itself.
	Self bool
	// Connected says that there is a tunnel to it.
	Connected bool
	// Health is what it said last over that tunnel.
	Health Health
	// Path is the way that calls to it take, or would take.
	Path PathKind
	// RTT is its round trip time as last measured, or 0.
	RTT time.Duration
	// InFlight is the number of calls of this channel to the peer that are under way, of whatever service.
	InFlight int
	// Aside is the time until which the peer gets calls only if others cannot take them, since several calls to it in a
	// row failed; zero: it gets its share.
	Aside time.Time
}
