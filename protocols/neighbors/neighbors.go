// Package neighbors is the service by which a node learns of further nodes from those it is connected to:
// p2p.neighbors.v1.NeighborService, defined in neighbors.proto.
//
// What travels are libp2p signed peer records (libp2p RFC 0002 and 0003), each made and signed by the peer it is
// about. A neighbor can withhold records and hand on old ones, but it cannot make up a peer or change its addresses.
// [Register] serves the records of a [Source], [Ask] asks a neighbor for its own and verifies each one. A verified
// record still says only what its peer claims: whether its addresses may be dialed is for the caller to decide. [Find]
// asks a neighbor for the records of those that offer a service: that they do is the neighbor's word only, until the
// caller is connected to them.
package neighbors

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// The protocol's limits. A server keeps to them, a client refuses or drops what exceeds them.
const (
	// MaxRecords is the largest number of records in an answer.
	MaxRecords = 32
	// MaxEnvelope is the longest signed envelope, in bytes.
	MaxEnvelope = 4 << 10
	// MaxTotal is the largest sum of the envelopes of an answer, in bytes.
	MaxTotal = 64 << 10
	// MaxAge is how long ago the answering node may have received a record from the peer itself.
	MaxAge = time.Hour
	// MaxAddrs is the largest number of addresses that Ask takes from a record; the rest is cut.
	MaxAddrs = 32
	// MaxService is the longest name of a service, in bytes.
	MaxService = 200
	// maxAnswer bounds an answer on the wire, in bytes: the envelopes and what frames them.
	maxAnswer = MaxTotal + MaxRecords*32
)

// A Signed is a peer's record as it was received from that peer.
type Signed struct {
	// Envelope is a marshaled record.Envelope that holds a peer.PeerRecord, signed by the peer it is about.
	Envelope []byte
	// Age is how long ago the envelope was received from the peer itself.
	Age time.Duration
}

// A Source is what [Register] serves from. It is called concurrently, once for each request, and must not block.
type Source interface {
	// Records returns at most max records that asker may see: of peers other than asker, and only those whose
	// addresses are of use to it. The order is the source's choice. The context is the call's.
	Records(ctx context.Context, max int, asker peer.ID) []Signed
}

// A SourceFunc is a function that is a [Source].
type SourceFunc func(ctx context.Context, max int, asker peer.ID) []Signed

// Records calls f.
func (f SourceFunc) Records(ctx context.Context, max int, asker peer.ID) []Signed {
	return f(ctx, max, asker)
}

// A Catalog returns at most max records of peers that offer a service, and that asker may see: of peers other than asker,
// and only those whose addresses are of use to it. [Register] calls it concurrently, once for each request of
// FindService; it must not block. The context is the call's.
type Catalog func(ctx context.Context, service string, max int, asker peer.ID) []Signed
