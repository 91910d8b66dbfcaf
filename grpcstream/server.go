package grpcstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lynn9388/p2p/grpcstream/internal/resume"
)

// ServerConfig says how a [Server] serves. The zero value is ready to use; fields of 0 take the default named.
type ServerConfig struct {
	// Network is the name of the network whose tunnels are served. "": DefaultNetwork.
	Network string
	// Authorize decides every call, unary or stream, of whatever service, before its request is decoded. An error
	// refuses it: with its own gRPC status if it has one, else with PermissionDenied and a text that tells the caller
	// nothing more. It must not block for long and may be called concurrently. nil: every connected peer may call.
	Authorize func(ctx context.Context, c Call) error

	// MaxCallsPerPeer bounds the calls of one peer that run at once, over all its tunnels, and the streams of one
	// tunnel. 0: 1000.
	MaxCallsPerPeer int
	// MaxCalls bounds the calls of all peers that run at once. 0: 5000.
	MaxCalls int
	// MaxTunnelsPerPeer bounds the tunnels that one peer holds open. 0: 16.
	MaxTunnelsPerPeer int
	// BusyWait is how long a call above MaxCallsPerPeer or MaxCalls waits for its turn, before it is refused with
	// ResourceExhausted. 0: 1 s.
	BusyWait time.Duration
	// MaxMessageSize bounds a message in bytes, received or sent, after decompression. 0: 4 MiB.
	MaxMessageSize int
	// MaxHeaderSize bounds the header list of a call in bytes. 0: 16 KiB.
	MaxHeaderSize int

	// ConnectionTimeout is how long a new tunnel may take to begin with HTTP/2, and one HTTP/2 frame to arrive whole.
	// 0: 5 s.
	ConnectionTimeout time.Duration
	// WriteStall is how long a write to a tunnel may make no progress. 0: 5 s.
	WriteStall time.Duration

	// Tags are announced beside the services, at most 16, each "key=value": see [CheckTag]. A caller may choose
	// instances by them: see [Selector].
	Tags []string
	// Standard also serves [StandardProtocol], so that programs of other networks and makers can call.
	Standard bool
	// WithoutReflection leaves the reflection service out.
	WithoutReflection bool
	// Options are applied over the defaults, except for credentials. grpc.StreamInterceptor and grpc.InTapHandle are
	// taken; use grpc.ChainStreamInterceptor.
	Options []grpc.ServerOption
	// Metrics gets the counters p2p_grpcstream_panics_total and p2p_grpcstream_refused_calls_total. nil: nothing is
	// counted.
	Metrics prometheus.Registerer
	// Logger gets panics of handlers (Error) and refused tunnels and calls (Debug). nil: slog.Default.
	Logger *slog.Logger
}

// Call is what [ServerConfig.Authorize] decides on.
type Call struct {
	// Peer is who calls.
	Peer Peer
	// Method is the method as it was registered, "/package.Service/Method". It is empty for a method that is not
	// registered: allowed, the call fails with Unimplemented.
	Method string
}

// A Server serves gRPC to the peers of a libp2p host. It is a grpc.ServiceRegistrar. Services are registered first,
// then it is started once, then shut down once. Its methods may be called concurrently.
type Server struct {
	cfg     ServerConfig
	log     *slog.Logger
	limits  *callLimits
	metrics *metrics // set by the start
	resumes *resume.Sessions

	life     sync.Mutex // held while the server starts or is withdrawn
	withdraw func()

	mu       sync.Mutex
	state    serverState
	services map[string]*registered
	grpc     *grpc.Server
	health   *health.Server
	memory   *memoryListener
	tunnels  map[*tunnel]struct{}

	methods  map[string]*method // by full name; read only after the start
	unknown  method             // stands for all methods that are not registered
	watches  context.Context    //nolint:containedctx // ends all health watches at the shutdown
	unwatch  context.CancelFunc
	serving  sync.WaitGroup
	stopOnce sync.Once
	stopped  chan struct{}
	stopErr  error
}

type serverState int

const (
	serverNew serverState = iota
	serverStarted
	serverClosed
)

type registered struct {
	desc *grpc.ServiceDesc // with each method wrapped
	impl any
}

// NewServer makes a server. It opens nothing and starts nothing; a mistake in cfg is reported by [Server.Start].
func NewServer(cfg ServerConfig) *Server {
	cfg = cfg.withDefaults()
	s := &Server{
		cfg:      cfg,
		log:      cfg.Logger,
		limits:   newCallLimits(cfg),
		services: make(map[string]*registered),
		methods:  make(map[string]*method),
		health:   health.NewServer(),
		tunnels:  make(map[*tunnel]struct{}),
		withdraw: func() {},
		stopped:  make(chan struct{}),
	}
	s.resumes = resume.NewSessions(resumeErrors())
	s.watches, s.unwatch = context.WithCancel(context.Background())
	return s
}

// RegisterService implements grpc.ServiceRegistrar. It panics, with the name of the service, when the service is
// already registered, when impl does not implement it, when the name does not fit a protocol ID, and after Start. A
// health or reflection service registered here replaces the server's own.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if err := s.register(desc, impl); err != nil {
		panic(err.Error())
	}
}

func (s *Server) register(desc *grpc.ServiceDesc, impl any) error {
	if err := checkService(desc.ServiceName); err != nil {
		return err
	}
	if impl != nil && desc.HandlerType != nil {
		want := reflect.TypeOf(desc.HandlerType).Elem()
		if got := reflect.TypeOf(impl); !got.Implements(want) {
			return fmt.Errorf("grpcstream: register %s: %v does not implement %v", desc.ServiceName, got, want)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != serverNew {
		return fmt.Errorf("grpcstream: register %s: the server was started; register services before", desc.ServiceName)
	}
	if _, ok := s.services[desc.ServiceName]; ok {
		return fmt.Errorf("grpcstream: register %s: the service is already registered", desc.ServiceName)
	}
	s.services[desc.ServiceName] = &registered{desc: s.guardService(desc, impl), impl: impl}
	if _, err := s.health.Check(context.Background(), &healthpb.HealthCheckRequest{Service: desc.ServiceName}); err != nil {
		s.health.SetServingStatus(desc.ServiceName, healthpb.HealthCheckResponse_SERVING) // nobody said otherwise yet
	}
	return nil
}

// GetServiceInfo returns the registered services by name, and after the start also health and reflection. It has the
// signature of grpc.Server's, which the reflection service needs.
func (s *Server) GetServiceInfo() map[string]grpc.ServiceInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	infos := make(map[string]grpc.ServiceInfo, len(s.services))
	for name, r := range s.services {
		info := grpc.ServiceInfo{Metadata: r.desc.Metadata}
		for _, m := range r.desc.Methods {
			info.Methods = append(info.Methods, grpc.MethodInfo{Name: m.MethodName})
		}
		for _, m := range r.desc.Streams {
			info.Methods = append(info.Methods, grpc.MethodInfo{
				Name: m.StreamName, IsClientStream: m.ClientStreams, IsServerStream: m.ServerStreams,
			})
		}
		infos[name] = info
	}
	return infos
}

// Services returns the names of the services that are announced, sorted: those registered, without health,
// reflection and p2p's own.
func (s *Server) Services() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.userServices()))
}

// Tags returns the tags that the server announces, sorted.
func (s *Server) Tags() []string { return slices.Sorted(slices.Values(s.cfg.Tags)) }

func (s *Server) userServices() map[string]*registered {
	users := maps.Clone(s.services)
	maps.DeleteFunc(users, func(name string, _ *registered) bool { return IsSystemService(name) })
	return users
}

// InUse tells whether calls of the peer run now, or did in the last 10 s and it still has a tunnel here.
func (s *Server) InUse(p peer.ID) bool { return s.limits.calling(p) }

// Start begins to serve the peers of h and announces the services. It returns at once; calls are served in the
// background until [Server.Shutdown]. The host stays the caller's. A server starts once.
func (s *Server) Start(h corehost.Host) error {
	s.life.Lock()
	defer s.life.Unlock()
	withdraw := func() {}
	if s.isNew() && !slices.Contains(h.Mux().Protocols(), TunnelProtocol(s.cfg.Network)) { // else the start fails
		withdraw = s.announce(h)
	}
	if err := s.serve(h); err != nil {
		withdraw()
		return err
	}
	s.withdraw = withdraw
	return nil
}

func (s *Server) isNew() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == serverNew
}

func (s *Server) serve(h corehost.Host) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case serverStarted:
		return fmt.Errorf("grpcstream: start: the server was started before")
	case serverClosed:
		return fmt.Errorf("grpcstream: start: the server was shut down: %w", net.ErrClosed)
	case serverNew:
	}
	var err error
	if s.metrics, err = newMetrics(s.cfg.Metrics); err != nil {
		return err
	}
	if err := errors.Join(CheckNetwork(s.cfg.Network), checkTags(s.cfg.Tags)); err != nil {
		return err
	}
	g, err := s.newGRPC()
	if err != nil {
		return err
	}
	listeners, err := s.listen(h)
	if err != nil {
		g.Stop()
		return err
	}
	s.addSystemServices()
	for _, r := range s.services {
		g.RegisterService(r.desc, r.impl)
	}
	s.grpc, s.state = g, serverStarted
	for _, l := range listeners {
		s.serving.Go(func() {
			if err := g.Serve(l); err != nil {
				s.log.Debug("serving ended", "proto", l.Addr(), "err", err)
			}
		})
	}
	return nil
}
