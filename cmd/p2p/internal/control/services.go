package control

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/protocols/nodeinfo"
)

// ListServices implements ControlServiceServer.
func (s *Server) ListServices(ctx context.Context, req *ListServicesRequest) (*ListServicesResponse, error) {
	t, err := s.resolve(req.GetTarget())
	if err != nil {
		return nil, err
	}
	services, err := nodeinfo.List(ctx, s.cfg.Node.Peer(t.dial))
	if err != nil {
		return nil, plain(err)
	}
	res := &ListServicesResponse{Id: t.id.String()}
	for _, svc := range services {
		out := &Service{Name: svc.GetName()}
		for _, m := range svc.GetMethods() {
			out.Methods = append(out.Methods, &Method{Name: m.GetName(), ClientStreaming: m.GetClientStreaming(), ServerStreaming: m.GetServerStreaming()})
		}
		res.Services = append(res.Services, out)
	}
	return res, nil
}

// FindInstances implements ControlServiceServer.
func (s *Server) FindInstances(ctx context.Context, req *FindInstancesRequest) (*FindInstancesResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, p2p.DefaultDiscoveryTimeout)
	defer cancel()
	events := s.cfg.Node.PeerEvents(ctx)
	if ids := s.instances(req.GetService()); len(ids) > 0 {
		return &FindInstancesResponse{Ids: ids}, nil
	}
	for range events {
		if ids := s.instances(req.GetService()); len(ids) > 0 {
			return &FindInstancesResponse{Ids: ids}, nil
		}
	}
	return nil, status.Errorf(codes.Unavailable, "no other node offers %s (looked for %s): \"p2p services ls\" shows what is there",
		req.GetService(), p2p.DefaultDiscoveryTimeout.Round(time.Second))
}

// instances returns the peers that offer a service, the nearest first.
func (s *Server) instances(service string) []string {
	peers := slices.DeleteFunc(s.others(), func(p p2p.PeerInfo) bool { return !slices.Contains(p.Services, service) })
	slices.SortStableFunc(peers, func(a, b p2p.PeerInfo) int { return nearness(a) - nearness(b) })
	var ids []string
	for _, p := range peers {
		ids = append(ids, p.ID.String())
	}
	return ids
}

func nearness(p p2p.PeerInfo) int {
	switch p.State {
	case p2p.StateNeighbor:
		return 0
	case p2p.StateConnected:
		return 1
	default:
		return 2
	}
}
