package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/discovery"
	"github.com/lynn9388/p2p/discovery/dht"
	"github.com/lynn9388/p2p/grpcstream"
)

// The defaults of a node.
const (
	// DefaultNetwork is the network of a node without [WithNetwork].
	DefaultNetwork = grpcstream.DefaultNetwork
	// DefaultDiscoveryTimeout is how long a call waits for its service or peer to become known.
	DefaultDiscoveryTimeout = 5 * time.Second
	// DefaultShutdownTimeout is how long Close lets calls in flight go on.
	DefaultShutdownTimeout = 10 * time.Second
	// MaxNameLen is the longest name of a node, in bytes.
	MaxNameLen = 64
)

// An Option changes how [NewNode] builds a node. The later of two options that set the same thing wins. An option with
// a bad value is no panic: the node keeps the error and returns it from the next JoinNetwork, StartServer, Run or Wait.
type Option interface{ apply(c *config) error }

type optionFunc func(c *config) error

func (f optionFunc) apply(c *config) error { return f(c) }

// config is what the options set. Its zero value is no default: see newConfig.
type config struct {
	profile   profile
	relays    []namedRelay
	noMapping bool
	webSocket string

	listen   string
	home     string
	identity crypto.PrivKey
	name     string
	network  string
	tags     []string
	announce []string

	allow     []peer.ID
	allowFile string
	open      bool
	authorize Authorizer

	serviceConfig string
	serverOptions []grpc.ServerOption
	dialOptions   []grpc.DialOption
	libp2pOptions []libp2p.Option
	noReflection  bool
	low, high     int
	sources       []discovery.Source
	sourcesSet    bool
	dht           bool
	lifetime      time.Duration
	discoveryWait time.Duration
	shutdown      time.Duration
	metrics       prometheus.Registerer
	logger        *slog.Logger
}

func newConfig(addr string, opts []Option) (*config, error) {
	c := &config{listen: addr, network: DefaultNetwork, discoveryWait: DefaultDiscoveryTimeout, shutdown: DefaultShutdownTimeout}
	var errs []error
	for _, o := range append([]Option{LAN()}, opts...) {
		if o == nil {
			errs = append(errs, errors.New("p2p: an option is nil"))
			continue
		}
		if err := o.apply(c); err != nil {
			errs = append(errs, fmt.Errorf("p2p: %w", err))
		}
	}
	return c, errors.Join(append(errs, c.check())...)
}

// check finds options that contradict one another.
func (c *config) check() error {
	switch {
	case c.home != "" && c.identity != nil:
		return errors.New("p2p: WithHome and WithIdentity: a node has one identity: use one of them")
	case c.open && c.closed():
		return errors.New("p2p: WithOpen together with WithAllow, WithAllowFile or WithAuthorizer: use one side")
	}
	return c.checkAccess()
}

// closed tells whether an option restricts who may call.
func (c *config) closed() bool { return c.listed() || c.authorize != nil }

// listed tells whether an allow list says who may connect.
func (c *config) listed() bool { return c.allow != nil || c.allowFile != "" }

// WithHome keeps the node's identity, the peer IDs seen first at joined addresses and the known peers in a folder, which
// is created with mode 0700. One process at a time uses a home. Without it a node has a new identity at each start and
// remembers nothing.
func WithHome(dir string) Option {
	return optionFunc(func(c *config) error {
		if dir == "" {
			return errors.New("WithHome: the folder is empty: name one, or leave the option out for a throwaway identity")
		}
		c.home = dir
		return nil
	})
}

// WithIdentity gives the node's key, for programs that keep keys in a place of their own.
func WithIdentity(key crypto.PrivKey) Option {
	return optionFunc(func(c *config) error {
		if key == nil {
			return errors.New("WithIdentity: the key is nil")
		}
		c.identity = key
		return nil
	})
}

// WithName gives the node a name for people to read: at most [MaxNameLen] bytes. It is a claim that others display; it
// identifies nothing.
func WithName(name string) Option {
	return optionFunc(func(c *config) error {
		if len(name) > MaxNameLen {
			return fmt.Errorf("WithName: %q has %d bytes, at most %d are allowed", name[:MaxNameLen]+"…", len(name), MaxNameLen)
		}
		c.name = name
		return nil
	})
}

// WithNetwork sets the network name: 1 to 64 characters of a-z, 0-9, '.', '_' and '-'. Nodes of different names never
// become neighbors and cannot call one another. A name separates networks; it does not protect them: for that use
// [WithAllow].
func WithNetwork(name string) Option {
	return optionFunc(func(c *config) error {
		if err := grpcstream.CheckNetwork(name); err != nil {
			return fmt.Errorf("WithNetwork: %w", err)
		}
		c.network = name
		return nil
	})
}

// WithTags gives the node tags, each "key=value": at most 16, of at most 64 bytes and the characters A-Z, a-z, 0-9, '.',
// '_' and '-'. They belong to the node and so to all of its services; others choose by them: see [WithTag]. They are
// claims, which prove nothing. The option adds to what it was given before.
func WithTags(tags ...string) Option {
	return optionFunc(func(c *config) error {
		for _, t := range tags {
			if err := grpcstream.CheckTag(t); err != nil {
				return fmt.Errorf("WithTags: %w", err)
			}
		}
		c.tags = append(c.tags, tags...)
		return nil
	})
}

// WithAnnounce adds addresses, each host or host:port, at which others reach this node although it does not listen
// there: for a machine behind a 1:1 NAT. Without a port the listening one is announced.
func WithAnnounce(addrs ...string) Option {
	return optionFunc(func(c *config) error {
		c.announce = append(c.announce, addrs...)
		return nil
	})
}

// WithAllow lets only the peers named connect, be connected to and call; with [WithAllowFile], those of both lists. A
// peer that is not listed gets nothing but the handshake. WithAllow() without an ID lets nobody in.
func WithAllow(ids ...peer.ID) Option {
	return optionFunc(func(c *config) error {
		for _, id := range ids {
			if _, err := peer.IDFromBytes([]byte(id)); err != nil {
				return fmt.Errorf("WithAllow: %q is not a peer ID: %w", string(id), err)
			}
		}
		c.allow = append(append(make([]peer.ID, 0, len(c.allow)+len(ids)), c.allow...), ids...)
		return nil
	})
}

// WithAllowFile reads the allow list from a file: one peer ID a line, the rest of the line and lines that start with #
// are comments. The file is read again when it changes; the connections of a peer that is no longer listed are closed
// within a second. A file that cannot be read fails the start, and later leaves the last good list in force.
func WithAllowFile(path string) Option {
	return optionFunc(func(c *config) error {
		if path == "" {
			return errors.New("WithAllowFile: the path is empty")
		}
		c.allowFile = path
		return nil
	})
}

// WithOpen says that every node of the network may call this one. In [LAN] that is so anyway, and is logged at the start.
func WithOpen() Option {
	return optionFunc(func(c *config) error {
		c.open = true
		return nil
	})
}

// An Authorizer decides a call before its request is decoded. The caller's ID is proven by the connection. The method
// is the registered one, such as "/helloworld.Greeter/SayHello", or empty for one that the node does not have. nil
// allows the call; an error refuses it with PermissionDenied, or with its own code when it is a gRPC status. It is called
// from many goroutines at once and for every call, those to oneself excepted.
type Authorizer func(ctx context.Context, caller PeerInfo, method string) error

// WithAuthorizer sets who may call what, for connected peers. See [WithAllow] for who may connect.
func WithAuthorizer(a Authorizer) Option {
	return optionFunc(func(c *config) error {
		if a == nil {
			return errors.New("WithAuthorizer: the authorizer is nil")
		}
		c.authorize = a
		return nil
	})
}

// WithServerOptions passes options to the node's gRPC server: interceptors, stats handlers, limits. They come after the
// node's own and win over them, except transport credentials, which are the node's. [grpc.StreamInterceptor] and
// [grpc.InTapHandle] are taken, and fail the start: use [grpc.ChainStreamInterceptor].
func WithServerOptions(opts ...grpc.ServerOption) Option {
	return optionFunc(func(c *config) error {
		c.serverOptions = append(c.serverOptions, opts...)
		return nil
	})
}

// WithServiceConfig sets the gRPC service config, in JSON, of the node's channel: per-method timeouts and retry policies
// (https://github.com/grpc/grpc/blob/master/doc/service_config.md). Retries go to instances not yet tried. Leave
// retryThrottling out: all services would share it.
func WithServiceConfig(json string) Option {
	return optionFunc(func(c *config) error {
		c.serviceConfig = json
		return nil
	})
}

// WithDialOptions passes options to the node's gRPC channel: interceptors, stats handlers, limits. Credentials, dialer,
// resolver, authority, idle timeout and the default service config are the node's: see [WithServiceConfig].
func WithDialOptions(opts ...grpc.DialOption) Option {
	return optionFunc(func(c *config) error {
		c.dialOptions = append(c.dialOptions, opts...)
		return nil
	})
}

// WithoutReflection leaves out the reflection service, which tools such as grpcurl need.
func WithoutReflection() Option {
	return optionFunc(func(c *config) error {
		c.noReflection = true
		return nil
	})
}

// WithNeighbors sets the two marks between which the number of neighbors is held: below low the node looks for more, at
// high a newcomer that is not in use is let go or takes the place of one, by lot. The default is 15 and 20.
func WithNeighbors(low, high int) Option {
	return optionFunc(func(c *config) error {
		if low < 1 || high < low {
			return fmt.Errorf("WithNeighbors(%d, %d): want 1 <= low <= high", low, high)
		}
		c.low, c.high = low, high
		return nil
	})
}

// WithDiscovery replaces the profile's sources of peers, wherever the profile stands among the options; without an
// argument there are none. JoinNetwork and the exchange with neighbors work in any case.
func WithDiscovery(sources ...discovery.Source) Option {
	return optionFunc(func(c *config) error {
		for _, s := range sources {
			if s == nil {
				return errors.New("WithDiscovery: a source is nil")
			}
		}
		c.sources, c.sourcesSet = sources, true
		return nil
	})
}

// WithDHT has the node take part in a distributed table in which the nodes of its network, those that take part, keep who
// offers which service: a service is found then that neither this node's neighbors nor theirs offer. The table is private
// to the network, contacts nobody else, and works on loopback and private addresses. A network of up to about twenty
// nodes has no use for it.
func WithDHT() Option {
	return optionFunc(func(c *config) error {
		c.dht = true
		return nil
	})
}

// WithRecordLifetime sets how long the table of [WithDHT] keeps the record of a service that is not announced again, at
// least 1 s: so long after it has died a node is still said to offer its services, and tried in vain by those who look
// for them. A node announces its own services at least each third of it. It should be the same on all nodes of a network.
// See [dht.DefaultLifetime].
func WithRecordLifetime(d time.Duration) Option {
	return optionFunc(func(c *config) error {
		if d < dht.MinLifetime {
			return fmt.Errorf("WithRecordLifetime(%v): want at least %v", d, dht.MinLifetime)
		}
		c.lifetime = d
		return nil
	})
}

// WithDiscoveryTimeout sets how long a call waits for its service or peer to become known, at least 1 ms; the call's own
// deadline ends the wait too. See [DefaultDiscoveryTimeout].
func WithDiscoveryTimeout(d time.Duration) Option {
	return optionFunc(func(c *config) error {
		if d < time.Millisecond {
			return fmt.Errorf("WithDiscoveryTimeout(%v): want at least 1ms", d)
		}
		c.discoveryWait = d
		return nil
	})
}

// WithShutdownTimeout sets how long Close lets calls in flight go on; with 0 they are ended at once. See
// [DefaultShutdownTimeout].
func WithShutdownTimeout(d time.Duration) Option {
	return optionFunc(func(c *config) error {
		if d < 0 {
			return fmt.Errorf("WithShutdownTimeout(%v): want 0 or more", d)
		}
		c.shutdown = d
		return nil
	})
}

// WithLibp2pOptions passes options to libp2p; they win over the node's own.
func WithLibp2pOptions(opts ...libp2p.Option) Option {
	return optionFunc(func(c *config) error {
		c.libp2pOptions = append(c.libp2pOptions, opts...)
		return nil
	})
}

// WithMetrics registers the node's Prometheus metrics: those of libp2p, of its resource manager and of its relay service,
// and the node's own, whose names begin with p2p_: of calls refused and handlers that panicked (p2p_grpcstream_), of peers
// refused and paths changed (p2p_node_), and beyond the LAN of relays and of attempts to get direct connections
// (p2p_reach_). Nodes that share a registerer are counted together. For traces and for metrics of calls pass a stats
// handler, such as that of otelgrpc, to [WithServerOptions] and [WithDialOptions].
func WithMetrics(r prometheus.Registerer) Option {
	return optionFunc(func(c *config) error {
		if r == nil {
			return errors.New("WithMetrics: the registerer is nil")
		}
		c.metrics = r
		c.libp2pOptions = append(c.libp2pOptions, libp2p.PrometheusRegisterer(r))
		return nil
	})
}

// WithLogger sets the logger; without it [slog.Default] is used. What a person wants to see of a running node is logged
// at Info.
func WithLogger(l *slog.Logger) Option {
	return optionFunc(func(c *config) error {
		if l == nil {
			return errors.New("WithLogger: the logger is nil: use slog.New(slog.DiscardHandler) for silence")
		}
		c.logger = l
		return nil
	})
}
