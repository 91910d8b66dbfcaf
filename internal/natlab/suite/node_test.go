//go:build linux

package suite

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/internal/natlab"
	"github.com/lynn9388/p2p/internal/netns"
	"github.com/lynn9388/p2p/internal/pace"
	"github.com/lynn9388/p2p/internal/poll"
)

const (
	runsEnv = "P2P_NAT_RUNS"
	logEnv  = "P2P_NAT_LOG" // the level of the nodes' logs; without it it is info
)

// hop is the delay of one way between two sites.
const hop = 15 * time.Millisecond

// patience bounds what must come at some time, with no figure promised.
const patience = 30 * time.Second

// runs is how often a test repeats what succeeds with some probability.
func runs(t *testing.T) int {
	t.Helper()
	text := os.Getenv(runsEnv)
	if text == "" {
		return 3
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: want a number of at least 1", runsEnv, text)
	}
	return n
}

// world is a lab with the nodes of one test.
type world struct {
	*natlab.Lab
	t       *testing.T
	network string
}

func newWorld(t *testing.T, cfg natlab.Config) *world {
	t.Helper()
	if !pace.Long() {
		t.Skip(pace.Variable + " is not set: nodes across NATs take minutes")
	}
	return &world{Lab: natlab.New(t, cfg), t: t, network: "test-" + strings.ToLower(rand.Text())}
}

// relay starts a relay on a host of its own.
func (w *world) relay() *node {
	w.t.Helper()
	r := w.node(w.Public(), setup{Profile: "relay", WebSocket: ":443"})
	r.start()
	return r
}

// node is a node's process on a host of the lab.
type node struct {
	t      *testing.T
	life   context.Context //nolint:containedctx // the test's, which a part of it must not cut short
	host   *netns.Host
	setup  setup
	env    []string
	id     peer.ID
	cmd    *exec.Cmd
	client *rpc.Client
	log    string

	stopped bool // by the test, which has shown the log if that was of interest
}

// node makes a node that does not run yet. Network, key, socket and, if it is not set, the listening address are given.
func (w *world) node(h *netns.Host, s setup) *node {
	w.t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	n := &node{t: w.t, life: w.t.Context(), host: h, setup: s}
	if level := os.Getenv(logEnv); level != "" {
		if err := n.setup.LogLevel.UnmarshalText([]byte(level)); err != nil {
			w.t.Fatal(err)
		}
	}
	if n.id, err = peer.IDFromPrivateKey(key); err != nil {
		w.t.Fatal(err)
	}
	if n.setup.Key, err = crypto.MarshalPrivateKey(key); err != nil {
		w.t.Fatal(err)
	}
	n.setup.Network = w.network
	if n.setup.Listen == "" {
		n.setup.Listen = ":9388"
	}
	dir, err := os.MkdirTemp("", "natlab") // short, for a socket
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n.setup.Socket, n.log = filepath.Join(dir, "s"), filepath.Join(dir, "log")
	w.t.Cleanup(func() {
		n.kill()
		if w.t.Failed() && !n.stopped {
			n.show()
		}
	})
	return n
}

// wan makes a node with the profile WAN that offers the service.
func (w *world) wan(h *netns.Host, relays ...*node) *node {
	w.t.Helper()
	s := setup{Profile: "wan", Service: serviceName}
	for _, r := range relays {
		s.Relays = append(s.Relays, r.place())
	}
	return w.node(h, s)
}

// place is how a node with a public address is named.
func (n *node) place() string { return fmt.Sprintf("%s@%s:9388", n.id, n.host.IP("eth0")) }

// launch starts the process and does not wait.
func (n *node) launch() {
	n.t.Helper()
	_ = os.Remove(n.setup.Socket)
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	n.stopped = false
	n.setup.Began = time.Now()
	text, err := json.Marshal(n.setup)
	if err != nil {
		n.t.Fatal(err)
	}
	n.cmd = n.host.Self(n.life, append(n.env, setupEnv+"="+string(text))...)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
}

// await waits until the process takes orders: its node has started.
func (n *node) await() {
	n.t.Helper()
	poll.Until(n.t, patience, func() string {
		client, err := rpc.Dial("unix", n.setup.Socket)
		if err != nil {
			return fmt.Sprintf("the node %s does not start: %v", n.id, err)
		}
		n.client = client
		return ""
	})
}

// start starts the process and waits until it takes orders.
func (n *node) start() {
	n.t.Helper()
	n.launch()
	n.await()
}

// kill ends the process as a crash does.
func (n *node) kill() { n.end(syscall.SIGKILL) }

// stop ends the process as its user does, and waits for it.
func (n *node) stop() {
	n.end(syscall.SIGTERM)
	n.stopped = true
}

func (n *node) end(s os.Signal) {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(s)
	hangs := time.AfterFunc(patience, func() {
		n.t.Errorf("%s does not end", n.id)
		_ = n.cmd.Process.Signal(syscall.SIGQUIT) // what it does stands in its log then
	})
	_ = n.cmd.Wait() // killed, or its error stands in its log
	hangs.Stop()
	n.cmd = nil
	if n.client != nil {
		_ = n.client.Close()
		n.client = nil
	}
}

// pause stops the process without its knowledge, as a suspended machine does; resume undoes it.
func (n *node) pause() { _ = n.cmd.Process.Signal(syscall.SIGSTOP) }

func (n *node) resume() { _ = n.cmd.Process.Signal(syscall.SIGCONT) }

// logged is what the node has logged.
func (n *node) logged() string {
	n.t.Helper()
	text, err := os.ReadFile(n.log)
	if err != nil {
		n.t.Error(err)
	}
	return string(text)
}

// show logs what the node has logged.
func (n *node) show() {
	n.t.Helper()
	text, err := os.ReadFile(n.log)
	n.t.Logf("log of %s on %s: %v\n%s", n.id, n.host.Name(), err, text)
}

// order has the node do something.
func order[Out any](n *node, what string, in any) (out Out) {
	n.t.Helper()
	if err := n.client.Call("Node."+what, in, &out); err != nil {
		n.t.Errorf("%s: %s: %v", n.id, what, err) // it may not be the test's own goroutine
	}
	return out
}

// call calls a peer, and fails the test unless the call succeeds.
func (n *node) call(to *node, give int) Called {
	n.t.Helper()
	c := order[Called](n, "Call", Call{Target: to.id.String(), Give: uint32(give), Timeout: patience})
	if c.Err != "" {
		n.t.Errorf("%s calls %s: %s", n.id, to.id, c.Err)
	}
	return c
}

// direct waits for a direct connection to a peer; ok tells whether it came within the limit.
func (n *node) direct(to *node, limit time.Duration) (l link, ok bool) {
	n.t.Helper()
	for _, l := range order[[]link](n, "Linked", Wanted{Peer: to.id.String(), Limit: limit}) {
		if !l.Relayed {
			return l, true
		}
	}
	return link{}, false
}
