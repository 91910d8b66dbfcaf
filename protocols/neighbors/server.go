package neighbors

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A Config says how [Register] serves. Source and Asker are required.
type Config struct {
	// Source has the records.
	Source Source
	// Asker returns the peer that makes the call with this context, as the connection has proved it; false refuses
	// the call. It must never believe metadata.
	Asker func(ctx context.Context) (peer.ID, bool)
	// Every is the time after which a caller may ask once more; 0 means 1 s.
	Every time.Duration
	// Burst is how often a caller may ask at once; 0 means 10.
	Burst int
}

// Register offers NeighborService on r. A caller that asks more often than cfg allows gets ResourceExhausted. Like
// every registration it must come before the server is started; it panics when cfg lacks what is required.
func Register(r grpc.ServiceRegistrar, cfg Config) {
	if cfg.Source == nil || cfg.Asker == nil {
		panic("neighbors: Register needs a Source and an Asker")
	}
	if cfg.Every <= 0 {
		cfg.Every = time.Second
	}
	if cfg.Burst <= 0 {
		cfg.Burst = 10
	}
	RegisterNeighborServiceServer(r, &server{source: cfg.Source, asker: cfg.Asker, limits: newLimits(cfg.Every, cfg.Burst)})
}

type server struct {
	UnimplementedNeighborServiceServer
	source Source
	asker  func(context.Context) (peer.ID, bool)
	limits *limits
}

func (s *server) Neighbors(ctx context.Context, req *NeighborsRequest) (*NeighborsResponse, error) {
	asker, ok := s.asker(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "neighbors: the connection does not say who asks")
	}
	if !s.limits.allow(asker) {
		return nil, status.Error(codes.ResourceExhausted, "neighbors: asked too often, try again later")
	}
	n := wanted(req.GetMax())
	return &NeighborsResponse{Records: bounded(s.source.Records(ctx, n, asker), n)}, nil
}

// wanted returns how many records a request asks for.
func wanted(asked uint32) int {
	if asked == 0 {
		return MaxRecords
	}
	return int(min(asked, MaxRecords))
}

// bounded returns the records that the protocol's limits allow, at most n.
func bounded(records []Signed, n int) []*Record {
	var out []*Record
	total := 0
	for _, r := range records {
		if len(out) == n {
			break
		}
		size := len(r.Envelope)
		if size == 0 || size > MaxEnvelope || total+size > MaxTotal || r.Age > MaxAge {
			continue
		}
		total += size
		out = append(out, &Record{SignedEnvelope: r.Envelope, AgeSeconds: uint32(max(r.Age, 0) / time.Second)})
	}
	return out
}
