//go:build linux

package p2p_test

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/p2ptest"
)

// T18: who is seen first at a joined address is pinned by nodes with a home, over restarts, until they are told to
// forget. It takes an address that is not loopback, which is never pinned.
func TestPins_AChangedIdentityIsRefused(t *testing.T) {
	if part() == "" {
		t.Parallel()
	}
	if !inHost(t, 2*time.Minute) {
		return
	}
	name := p2ptest.Network()
	first := p2p.NewNode(":0", p2ptest.Options(name)...)
	start(t, first)
	var place string // host:port
	for _, a := range first.Addrs() {
		if ip, err := a.ValueForProtocol(ma.P_IP4); err == nil && strings.HasPrefix(ip, "10.") {
			place = ip + ":" + port(t, first)
		}
	}
	old := first.ID()
	homes := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	join := func(opts ...p2p.Option) *p2p.Node {
		t.Helper()
		n := p2p.NewNode("localhost:0", append(p2ptest.Options(name), opts...)...)
		if err := n.JoinNetwork(place); err != nil {
			t.Fatal(err)
		}
		start(t, n)
		return n
	}
	neighborOf := func(n *p2p.Node, id peer.ID) func() string {
		return func() string {
			for _, p := range n.Peers() {
				if p.ID == id && p.State == p2p.StateNeighbor {
					return ""
				}
			}
			return "the joined node is no neighbor"
		}
	}
	var logs [3]warnings
	pinned := []*p2p.Node{join(p2p.WithHome(homes[0]), logs[0].logger()), join(p2p.WithHome(homes[1]))}
	plain := join(logs[2].logger())
	for _, n := range append(pinned, plain) {
		poll.Until(t, 20*time.Second, neighborOf(n, old))
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	// One of them is started anew, so that what it knows it has read.
	if err := pinned[1].Close(); err != nil {
		t.Fatal(err)
	}
	second := p2p.NewNode(place, p2ptest.Options(name)...)
	start(t, second)
	pinned[1] = join(p2p.WithHome(homes[1]), logs[1].logger())
	for i, n := range pinned {
		var err string
		poll.Until(t, 20*time.Second, func() string {
			if err = logs[i].with("refused"); err == "" {
				return "it refuses nobody"
			}
			return ""
		})
		for _, want := range []string{old.String(), second.ID().String(), place, "p2p peers forget " + old.String()} {
			if !strings.Contains(err, want) {
				t.Errorf("node %d does not name %s: %s", i, want, err)
			}
		}
		if neighborOf(n, second.ID())() == "" {
			t.Errorf("node %d took the other identity for its neighbor", i)
		}
		say("node %d: %s", i, err)
	}

	// A node without a home remembers nothing, and one that was told to forget accepts.
	poll.Until(t, 20*time.Second, neighborOf(plain, second.ID()))
	if line := logs[2].with(second.ID().String()); !strings.Contains(line, old.String()) {
		t.Errorf("the node without a home warned of the change with %q", line)
	}
	if err := pinned[0].Forget(old.String()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	poll.Until(t, 45*time.Second, neighborOf(pinned[0], second.ID()))
	say("accepted %v after Forget", time.Since(began).Round(time.Millisecond))
	if neighborOf(pinned[1], second.ID())() == "" {
		t.Error("the node that did not forget took the other identity for its neighbor")
	}
}

// warnings keeps what a node logs at Warn and above, a line each.
type warnings struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *warnings) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

// with returns the first line that has a text, or "".
func (w *warnings) with(text string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range strings.Lines(w.text.String()) {
		if strings.Contains(line, text) {
			return line
		}
	}
	return ""
}

func (w *warnings) logger() p2p.Option {
	return p2p.WithLogger(slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn})))
}
