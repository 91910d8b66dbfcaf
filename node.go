package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/protocols/broadcast"
)

// A Node offers gRPC services to the other nodes of its network and calls theirs. Make one with [NewNode]; the zero
// value is not usable. All methods may be called from many goroutines at once.
type Node struct {
	config *config
	access *access
	server *grpcstream.Server
	bus    *broadcast.Bus

	id atomic.Pointer[peer.ID] // as soon as there is a host: a logger may ask for it at any time

	mu      sync.Mutex
	state   state
	err     error    // of an option, or of the start
	joins   []string // places named before the start
	running *running // from the start on
	undoing sync.WaitGroup
	done    chan struct{}
	closed  error // of the first Close; set before done is closed
}

type state int

const (
	idle state = iota
	started
	failed
	closing
)

// NewNode makes a node that will listen at addr: "localhost:9388" (this machine only), ":9388" (all addresses), ":0"
// (any free port), "192.0.2.1:9388", "[::1]:9388" or a multiaddr; TCP and QUIC use the one port. It opens no socket,
// reads no file and starts no goroutine. A bad address or option is kept, and returned by the next JoinNetwork,
// StartServer, Run or Wait.
func NewNode(address string, opts ...Option) *Node {
	cfg, err := newConfig(address, opts)
	if _, bad := addr.ParseListen(address); bad != nil && err == nil {
		err = fmt.Errorf("p2p: %w", bad)
	}
	n := &Node{config: cfg, err: err, done: make(chan struct{})}
	n.access = newAccess(n, cfg)
	n.server = newServer(n, cfg)
	n.bus = newBus(n, cfg)
	return n
}

// StartServer opens the node's sockets and begins to find and accept others. It returns once the node can be dialed,
// or with the reason why it cannot be, which each further start returns again; a port that is taken is a
// [*host.PortTakenError]. A node is started once.
func (n *Node) StartServer() error {
	r, first, err := n.start()
	switch {
	case err == nil:
		r.logStart()
	case first: // the four lines of the README ignore the error
		if r != nil {
			err = n.undo(r, err)
		}
		n.logger().Error("the node did not start", "err", err)
	}
	return err
}

// start is StartServer without what is done outside the lock. It tells whether this is the first start; one that fails
// returns what it has built, if anything.
func (n *Node) start() (r *running, first bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.state == closing:
		return nil, false, ErrClosed
	case n.state == failed:
		return nil, false, n.err
	case n.state == started:
		return nil, false, ErrStarted
	case n.err != nil: // of an option
		n.state = failed
		return nil, true, n.err
	}
	if r, n.err = start(n, n.joins); n.err != nil {
		n.state = failed
		n.undoing.Add(1)
		return r, true, n.err
	}
	n.running, n.state = r, started
	return r, true, nil
}

// undo takes down what a start that failed has built. Its parts may log and call until they have ended, and loggers and
// handlers may ask the node, so nobody waits for them under the lock.
func (n *Node) undo(r *running, err error) error {
	defer n.undoing.Done()
	err = errors.Join(err, r.stop())
	n.id.Store(nil)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = err
	return err
}

// Wait blocks until the node is closed. It returns nil after Close, the reason when the node ended by itself, and at
// once the error of a start that failed, or [ErrNotStarted].
func (n *Node) Wait() error {
	n.mu.Lock()
	st, err, r := n.state, n.err, n.running
	n.mu.Unlock()
	switch {
	case err != nil:
		return err
	case st == idle:
		return ErrNotStarted
	case r == nil:
		return nil
	}
	select {
	case <-n.done:
	case <-r.failed:
		// A part of the node ended that should not have: nothing is left half alive.
		_ = n.Close()
	}
	return r.cause()
}

// Run starts the node, waits until ctx ends, and closes it. It returns nil after an orderly end, and
// else why the node ended or the error of its Close.
func (n *Node) Run(ctx context.Context) error {
	if err := n.StartServer(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = n.Close() })
	defer stop()
	if err := n.Wait(); err != nil {
		return err
	}
	return n.closed
}

// Close withdraws the node from the network, lets calls in flight end within the shutdown timeout, closes its
// connections and waits for its goroutines. It may be called at any time and more than once; each call returns when
// the node is closed, and the first tells whether calls had to be canceled or a part ended badly. A closed node is not
// started again.
func (n *Node) Close() error {
	n.mu.Lock()
	first, r := n.state != closing, n.running
	n.state = closing
	n.mu.Unlock()
	if !first {
		<-n.done
		return nil
	}
	defer close(n.done)
	n.undoing.Wait()
	if r == nil {
		n.closed = errors.Join(n.server.Shutdown(context.Background()), n.bus.Close()) // they run nothing, and begin nothing
	} else {
		n.closed = r.stop()
	}
	return n.closed
}

// live returns what runs, or the reason why nothing does.
func (n *Node) live() (*running, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch n.state {
	case started:
		return n.running, nil
	case closing:
		return nil, ErrClosed
	case failed:
		return nil, fmt.Errorf("%w: %w", ErrNotStarted, n.err)
	default:
		return nil, ErrNotStarted
	}
}

// begun returns what runs or ran; nil before the node has started. It waits for a start under way: peers may call as soon
// as a socket is open.
func (n *Node) begun() *running {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.running
}

func (n *Node) logger() *slog.Logger {
	if n.config.logger != nil {
		return n.config.logger
	}
	return slog.Default()
}
