package control

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p/cmd/p2p/internal/doctor"
)

// Examine implements ControlServiceServer.
func (s *Server) Examine(ctx context.Context, req *ExamineRequest) (*ExamineResponse, error) {
	subject := s.cfg.Examine()
	var checks []doctor.Check
	if req.GetTarget() == "" {
		checks = subject.Examine(ctx)
	} else {
		t, err := s.resolve(req.GetTarget())
		if err != nil {
			return nil, err
		}
		if t.id == s.cfg.Node.ID() {
			return nil, status.Error(codes.InvalidArgument, "this is the node itself: leave the PEER out")
		}
		checks = subject.ExaminePeer(ctx, t.id, t.dial)
	}
	res := new(ExamineResponse)
	for _, c := range checks {
		res.Checks = append(res.Checks, &Check{Name: c.Name, Status: string(c.Status), Text: c.Text, Remedy: c.Remedy})
	}
	return res, nil
}
