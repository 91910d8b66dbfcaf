package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

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
)

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
	shared  string   // what was said to give to others
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
	go func() { _ = s.node.Wait() }() // it closes the node, which ends the report, when a part of it fails
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
	if err := opts.checkProfile(); err != nil {
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

// start starts the node where it was told to listen, or at the usual port, or at any; a relay at any would be one that
// nobody finds.
func (s *session) start(strict bool) error {
	if strict {
		return s.startAt(s.opts.listen)
	}
	if s.opts.profile == profileRelay {
		return s.startAt(usualAddr)
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
	if err := node.JoinNetwork(s.joins()...); err != nil {
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
		Profile: s.profile(), Access: s.access, Started: s.started, Share: s.share, Diagnose: s.diagnose, Examine: s.subject, Logger: s.log,
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
