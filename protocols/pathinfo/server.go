package pathinfo

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// dialPause is how often a caller may have its addresses dialed: somebody waits for it, and nobody needs it twice.
	dialPause = 5 * time.Second
	// dialTimeout bounds the dials for one question.
	dialTimeout = 5 * time.Second
	// maxDialers is how many callers may have their addresses dialed at once, and how many are remembered for the pause.
	// Who has more identities than that waits in turn.
	maxDialers = 64
)

// Register offers PathInfoService on r, answered from looker. asker returns the peer that makes the call with a context, as
// the connection has proved it, and must never believe metadata; false refuses the call. Like every registration it must
// come before the server is started.
func Register(r grpc.ServiceRegistrar, looker Looker, asker func(ctx context.Context) (peer.ID, bool)) {
	RegisterPathInfoServiceServer(r, &server{looker: looker, asker: asker, last: make(map[peer.ID]time.Time)})
}

type server struct {
	UnimplementedPathInfoServiceServer
	looker Looker
	asker  func(context.Context) (peer.ID, bool)

	mu   sync.Mutex
	last map[peer.ID]time.Time // when a peer had its addresses dialed
}

func (s *server) Look(ctx context.Context, req *LookRequest) (*LookResponse, error) {
	asker, ok := s.asker(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "pathinfo: the connection does not say who asks")
	}
	if req.GetDial() && !s.mayDial(asker) {
		return nil, status.Error(codes.ResourceExhausted, "pathinfo: asked too often to dial, try again in a few seconds")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	v := s.looker.Look(ctx, asker, req.GetDial())
	res := &LookResponse{
		Time: timestamppb.Now(), Path: cut(v.Path), Relay: cut(v.Relay), Transport: cut(v.Transport), SeenAt: cut(v.SeenAt), NotDirect: cut(v.NotDirect),
		Reachability: cut(v.Reachability), UdpMapping: cut(v.UDPMapping), TcpMapping: cut(v.TCPMapping),
	}
	for _, m := range v.Dialed[:min(len(v.Dialed), MaxDialed)] {
		res.Dialed = append(res.Dialed, &Dialed{Addr: cut(m.Addr), Took: durationpb.New(m.Took), Error: cut(m.Err)})
	}
	return res, nil
}

// mayDial tells whether a caller may have its addresses dialed now, and counts it if so.
func (s *server) mayDial(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for id, at := range s.last {
		if now.Sub(at) >= dialPause {
			delete(s.last, id)
		}
	}
	if _, ok := s.last[p]; ok || len(s.last) >= maxDialers {
		return false
	}
	s.last[p] = now
	return true
}

// cut returns s as valid UTF-8 of at most MaxText bytes.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "")
	if len(s) > MaxText {
		s = strings.ToValidUTF8(s[:MaxText], "") // a rune may have been cut in two
	}
	return s
}
