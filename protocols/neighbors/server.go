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
	// Catalog has those of the peers that offer a service, the node itself among them. nil: FindService finds nobody.
	Catalog Catalog
	// Asker returns the peer that makes the call with this context, as the connection has proved it; false refuses
	// the call. It must never believe metadata.
	Asker func(ctx context.Context) (peer.ID, bool)
	// Every is the time after which a caller may ask each question once more; 0 means 1 s.
	Every time.Duration
	// Burst is how often a caller may ask each question at once; 0 means 10.
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
	RegisterNeighborServiceServer(r, &server{
		Config:    cfg,
		neighbors: newLimits(cfg.Every, cfg.Burst),
		services:  newLimits(cfg.Every, cfg.Burst),
	})
}

type server struct {
	UnimplementedNeighborServiceServer
	Config
	neighbors *limits // on the calls of Neighbors
	services  *limits // of FindService
}

func (s *server) Neighbors(ctx context.Context, req *NeighborsRequest) (*NeighborsResponse, error) {
	asker, err := s.admit(ctx, s.neighbors)
	if err != nil {
		return nil, err
	}
	n := wanted(req.GetMax())
	return &NeighborsResponse{Records: bounded(s.Source.Records(ctx, n, asker), n)}, nil
}

func (s *server) FindService(ctx context.Context, req *FindServiceRequest) (*FindServiceResponse, error) {
	asker, err := s.admit(ctx, s.services)
	if err != nil {
		return nil, err
	}
	if name := req.GetService(); name == "" || len(name) > MaxService {
		return nil, status.Errorf(codes.InvalidArgument, "neighbors: a service name of %d bytes, want 1 to %d", len(name), MaxService)
	}
	if s.Catalog == nil {
		return &FindServiceResponse{}, nil
	}
	n := wanted(req.GetMax())
	return &FindServiceResponse{Records: bounded(s.Catalog(ctx, req.GetService(), n, asker), n)}, nil
}

// admit tells who asks, unless that is unknown or asks too often.
func (s *server) admit(ctx context.Context, l *limits) (peer.ID, error) {
	asker, ok := s.Asker(ctx)
	if !ok {
		return "", status.Error(codes.Unauthenticated, "neighbors: the connection does not say who asks")
	}
	if !l.allow(asker) {
		return "", status.Error(codes.ResourceExhausted, "neighbors: asked too often, try again later")
	}
	return asker, nil
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
