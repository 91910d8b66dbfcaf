package grpcstream

import (
	"io"
	"slices"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
)

// addSystemServices registers health and reflection, where the user has not.
func (s *Server) addSystemServices() {
	s.addSystemService(registrarOf(func(r *collector) { healthpb.RegisterHealthServer(r, s.health) }))
	if s.cfg.WithoutReflection {
		return
	}
	opts := reflection.ServerOptions{Services: s}
	s.addSystemService(registrarOf(func(r *collector) {
		reflectionpb.RegisterServerReflectionServer(r, reflection.NewServerV1(opts))
	}))
	s.addSystemService(registrarOf(func(r *collector) {
		reflectionalphapb.RegisterServerReflectionServer(r, reflection.NewServer(opts))
	}))
}

func (s *Server) addSystemService(c *collector) {
	if _, ok := s.services[c.desc.ServiceName]; !ok {
		s.services[c.desc.ServiceName] = &registered{desc: s.guardService(c.desc, c.impl), impl: c.impl}
	}
}

// SetServing says whether a service is fit to be called; "" stands for the whole server. Peers that watch its health
// are told. All registered services serve from the start until the shutdown unless this was called before. Without
// effect after the shutdown and on a health service of one's own.
func (s *Server) SetServing(service string, ok bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if ok {
		status = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus(service, status)
}

// announce makes the services visible in identify. It returns the function that takes them back. Neither the handlers
// set nor those removed are told to the connected peers one by one, since identify takes ten pushes from one subnet and
// then one each five seconds, drops the others, and may take two of them out
// of order: the caller tells them by the tunnel's handler, set afterwards, and the last removal tells of all.
func (s *Server) announce(h corehost.Host) (withdraw func()) {
	var pids []protocol.ID
	for _, name := range s.Services() {
		pids = append(pids, ServiceProtocol(s.cfg.Network, name))
	}
	if len(pids) > maxAnnounced {
		pids = []protocol.ID{manyServices(s.cfg.Network)}
	}
	if checkTags(s.cfg.Tags) == nil { // else the start fails
		for _, tag := range slices.Compact(s.Tags()) {
			pids = append(pids, TagProtocol(s.cfg.Network, tag))
		}
	}
	for _, pid := range pids {
		h.Mux().AddHandler(pid, refuseStream)
	}
	return func() {
		for i, pid := range pids {
			if i < len(pids)-1 {
				h.Mux().RemoveHandler(pid)
			} else {
				h.RemoveStreamHandler(pid)
			}
		}
	}
}

// A collector catches what a generated Register function registers.
type collector struct {
	desc *grpc.ServiceDesc
	impl any
}

func registrarOf(register func(*collector)) *collector {
	c := new(collector)
	register(c)
	return c
}

// RegisterService implements grpc.ServiceRegistrar.
func (c *collector) RegisterService(desc *grpc.ServiceDesc, impl any) { c.desc, c.impl = desc, impl }

// refuseStream resets a stream opened on an announcement.
func refuseStream(_ protocol.ID, rwc io.ReadWriteCloser) error {
	if st, ok := rwc.(network.Stream); ok {
		return st.ResetWithError(network.StreamProtocolViolation)
	}
	return rwc.Close()
}
