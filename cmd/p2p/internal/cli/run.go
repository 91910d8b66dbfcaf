package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
	"github.com/lynn9388/p2p/discovery/mdns"
	"github.com/lynn9388/p2p/host"
)

const (
	// usualAddr is where a node listens that was not told where.
	usualAddr = ":9388"
	// anyAddr is taken when the usual port belongs to another program.
	anyAddr = ":0"
	// joinPatience is how long joining may take before it is talked about.
	joinPatience = 5 * time.Second
)

// runOptions are the flags of "p2p run".
type runOptions struct {
	listen    string
	name      string
	network   string
	allow     string
	logLevel  string
	join      []string
	announce  []string
	tags      []string
	dht       bool
	ephemeral bool
	verbose   bool
}

func (a *app) runCommand() *cobra.Command {
	var opts runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a node until Ctrl-C",
		Long: `Run a node in the foreground until SIGINT or SIGTERM. It finds the other nodes of its
network on this machine and on the local network by itself; --join names nodes elsewhere.

The first line of standard output is "share: ID@host:port": what others give to --join or use as
a PEER. Then it says who may call, and who comes and goes. Logs go to standard error.

Without --listen the node takes port 9388 (TCP and UDP) on all addresses, or a free port when that
one is taken; with --listen a port that is taken is an error.`,
		Example: `  p2p run
  p2p run --name kitchen --join 192.0.2.7:9388
  p2p run --listen localhost:9400 --home /tmp/second      a second node on this machine
  p2p run --allow friends.txt                             only these IDs may connect and call`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.run(cmd.Context(), opts, cmd.Flags().Changed("listen"))
		},
	}
	f := cmd.Flags()
	f.StringVarP(&opts.listen, "listen", "l", "", "where to listen: an `address`, host:port, :port or a multiaddr (default :9388, or a free port)")
	f.StringVar(&opts.name, "name", "", "the `name` that the node calls itself by (default the host name)")
	f.StringVar(&opts.network, "network", p2p.DefaultNetwork, "the network's `name`: nodes of different names never meet")
	f.StringArrayVar(&opts.join, "join", nil, "a `place` to join: host:port, ID@host:port or a multiaddr; may be repeated")
	f.StringArrayVar(&opts.announce, "announce", nil, "an `address`, host[:port], at which others reach this node behind a 1:1 NAT; may be repeated")
	f.StringArrayVarP(&opts.tags, "tag", "t", nil, "a `key=value` that others choose instances by; may be repeated")
	f.BoolVar(&opts.dht, "dht", false, "also look up and announce services in the network's DHT, for networks of more than some neighbors")
	f.StringVar(&opts.allow, "allow", "", "a `file` with the IDs that may connect and call, one a line; reread when it changes (default everybody)")
	f.BoolVar(&opts.ephemeral, "ephemeral", false, "a new identity, no home, nothing remembered; other commands cannot reach such a node")
	f.StringVar(&opts.logLevel, "log-level", "warn", "the least `level` to log: debug, info, warn or error")
	f.BoolVarP(&opts.verbose, "verbose", "v", false, "show all addresses, and every peer that is found")
	_ = cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// session is a node that runs in the foreground.
type session struct {
	opts    runOptions
	out     *output.Printer
	log     *slog.Logger
	node    *p2p.Node
	mdns    *mdns.Source
	home    string // "" for an ephemeral node
	started time.Time
	notes   []string // what to say after the first lines
	now     *phase
	// complaints says of peers that do not answer what a person can do about it. What "p2p run" prints, "p2p status"
	// shows as long as it holds.
	complaints complaints
}

func (a *app) run(ctx context.Context, opts runOptions, strict bool) error {
	s, err := a.newSession(opts)
	if err != nil {
		return err
	}
	if err := s.start(strict); err != nil {
		return err
	}
	defer func() { _ = s.node.Close() }()
	stopControl, err := s.serveControl()
	if err != nil {
		return err
	}
	defer stopControl()
	if err := s.report(ctx); err != nil {
		return err
	}
	if ctx.Err() == nil {
		return fmt.Errorf("the node ended by itself: %w", cause(s.node.Wait()))
	}
	s.log.Info("stopping")
	stopControl()
	return s.node.Close()
}

// cause stands in for an error that is missing.
func cause(err error) error {
	if err == nil {
		return errors.New("no reason is known: please report it, with the log of --log-level debug")
	}
	return err
}

// newSession checks what was asked for, before anything is touched.
func (a *app) newSession(opts runOptions) (*session, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(opts.logLevel)); err != nil {
		return nil, usagef("--log-level %s: use debug, info, warn or error", opts.logLevel)
	}
	out, err := output.New(a.stdout, output.Table)
	if err != nil {
		return nil, err
	}
	s := &session{opts: opts, out: out, now: new(phase)}
	s.log = newLogger(a.stderr, level, s.now)
	slog.SetDefault(s.log) // also for what libraries print by themselves
	switch {
	case opts.ephemeral && a.home != "":
		return nil, usagef("--ephemeral and --home: an ephemeral node has no home: leave one of them out")
	case opts.ephemeral:
	default:
		if s.home, err = a.homeDir(); err != nil {
			return nil, err
		}
		if err := control.CheckHome(s.home); err != nil {
			return nil, err
		}
	}
	if err := checkTags(opts.tags); err != nil {
		return nil, err
	}
	if s.opts.name == "" {
		s.opts.name = hostName()
	}
	return s, nil
}

// hostName is the machine's name without its domain, cut to what a node's name may be.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	name, _, _ = strings.Cut(name, ".")
	return name[:min(len(name), p2p.MaxNameLen)]
}

// start starts the node where it was told to listen, or at the usual port, or at any.
func (s *session) start(strict bool) error {
	if strict {
		return s.startAt(s.opts.listen)
	}
	err := s.startAt(usualAddr)
	taken, ok := errors.AsType[*host.PortTakenError](err)
	if !ok {
		return err
	}
	if err := s.startAt(anyAddr); err != nil {
		return err
	}
	s.notes = append(s.notes, fmt.Sprintf("%s port %d is taken, so this node has a port of its own", taken.Network, taken.Port))
	return nil
}

func (s *session) startAt(listen string) error {
	s.mdns = mdns.New(mdns.Config{Network: s.opts.network, Logger: debugOnly(s.log)})
	node := p2p.NewNode(listen, s.options()...)
	if err := node.JoinNetwork(s.opts.join...); err != nil {
		return &usageError{err} // of a flag: nothing was opened yet
	}
	s.now.starting.Store(true)
	err := node.StartServer()
	s.now.starting.Store(false)
	if err != nil {
		return errors.Join(err, node.Close())
	}
	s.node, s.started = node, time.Now()
	return nil
}

func (s *session) options() []p2p.Option {
	opts := []p2p.Option{
		p2p.WithName(s.opts.name), p2p.WithNetwork(s.opts.network), p2p.WithAnnounce(s.opts.announce...),
		p2p.WithTags(s.opts.tags...),
		p2p.WithDiscovery(s.mdns), p2p.WithLogger(s.log),
	}
	if s.home != "" {
		opts = append(opts, p2p.WithHome(s.home))
	}
	if s.opts.dht {
		opts = append(opts, p2p.WithDHT())
	}
	if s.opts.allow != "" {
		opts = append(opts, p2p.WithAllowFile(s.opts.allow))
	}
	return opts
}

// serveControl opens the node to the other commands, and returns what ends that.
func (s *session) serveControl() (stop func(), err error) {
	if s.home == "" {
		return func() {}, nil
	}
	l, err := control.Listen(s.home, s.log)
	if err != nil {
		return nil, err
	}
	server := control.NewServer(control.Config{
		Node: s.node, Name: s.opts.name, Version: version(), Network: s.opts.network, Home: s.home,
		Access: s.access, Started: s.started, Share: s.share, Diagnose: s.diagnose, Logger: s.log,
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) { // before it has begun
			s.log.Warn("the commands can no longer reach this node", "err", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		server.Shutdown(ctx)
		<-done
	}, nil
}

func (s *session) share() string {
	return shareText(s.node.ID().String(), s.node.Addrs(), s.opts.announce)
}

// access says who may connect and call.
func (s *session) access() string {
	switch {
	case s.opts.allow != "":
		return "the peers listed in " + s.opts.allow
	case s.localOnly():
		return "every process of this machine"
	default:
		return fmt.Sprintf("every node of the network %q that reaches this one; --allow FILE closes it", s.opts.network)
	}
}

// diagnose says what stands in the way of finding and reaching peers.
func (s *session) diagnose() []string {
	return append(s.reasons(), s.complaints.about(s.node.Peers())...)
}

// reasons says why nobody was found. With neighbors it names only what keeps the node from looking.
func (s *session) reasons() []string {
	st := s.mdns.State()
	switch st.Reason {
	case mdns.Refused, mdns.NotLooped:
		return []string{st.Text}
	case mdns.Found, mdns.Starting, mdns.Stopped, mdns.NoInterface, mdns.NoAddress, mdns.LocalOnly, mdns.Container, mdns.Silent:
	}
	for _, p := range s.node.Peers() {
		if p.State == p2p.StateNeighbor {
			return nil
		}
	}
	var out []string
	if len(s.opts.join) > 0 && time.Since(s.started) > joinPatience {
		out = append(out, "no neighbor yet by joining "+strings.Join(s.opts.join, ", ")+": the node keeps trying")
	}
	if st.Reason != mdns.Found && st.Reason != mdns.Starting {
		out = append(out, st.Text)
	}
	return out
}
