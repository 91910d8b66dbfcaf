// Package control is the API of a running node for the p2p command of the same user: a gRPC service on a Unix socket in
// the node's home. Calls of any other service on the socket are forwarded to a peer, so that the command can call what
// peers offer over the node's own connections.
package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/cmd/p2p/internal/doctor"
)

// Limits of the socket. Both ends are processes of the same user: these only keep an accident small.
const (
	maxMessage = 256 << 20
	maxHeaders = 1 << 20
)

// Config says what a [Server] tells.
type Config struct {
	Node     *p2p.Node
	Name     string                // what the node calls itself
	Version  string                // of the command
	Network  string                // the network's name
	Home     string                // the node's folder
	Profile  string                // lan, wan or relay
	Access   func() string         // who may connect and call
	Started  time.Time             // when the node started
	Share    func() string         // the address to give away
	Diagnose func() []string       // what stands in the way of finding peers
	Examine  func() doctor.Subject // what "p2p doctor" looks at
	Logger   *slog.Logger
}

// Server serves the API of one node.
type Server struct {
	UnimplementedControlServiceServer
	cfg     Config
	topics  *topics
	grpc    *grpc.Server
	closing chan struct{}
	once    sync.Once
	pinning sync.Mutex
}

// NewServer returns a server; it does nothing until Serve.
func NewServer(cfg Config) *Server {
	s := &Server{cfg: cfg, closing: make(chan struct{})}
	s.topics = &topics{join: s.join}
	s.grpc = grpc.NewServer(
		grpc.ForceServerCodecV2(rawCodec{}),
		grpc.UnknownServiceHandler(proxy{conn: s.conn}.handle),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeaders))
	RegisterControlServiceServer(s.grpc, s)
	return s
}

// Serve answers on l until Shutdown, and returns nil then. It closes l.
func (s *Server) Serve(l net.Listener) error {
	err := s.grpc.Serve(l)
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil // Shutdown came first
	}
	return err
}

// Shutdown ends the calls that watch, lets the others end until ctx does, and cuts the rest. It may be called more than
// once.
func (s *Server) Shutdown(ctx context.Context) {
	s.once.Do(func() { close(s.closing) })
	done := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.grpc.Stop()
		<-done
	}
}

// conn returns the connection to a target that the user named.
func (s *Server) conn(target string) (grpc.ClientConnInterface, error) {
	t, err := s.resolve(target)
	if err != nil {
		return nil, err
	}
	return s.cfg.Node.Peer(t.dial), nil
}
