package control

import (
	"context"

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
