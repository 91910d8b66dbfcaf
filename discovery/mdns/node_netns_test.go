package mdns

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/netns"
)

// A node is a child in a host of a lab, and what it has said so far.
type node struct {
	t     *testing.T
	id    string
	stdin io.WriteCloser
	kill  func()
	ended chan struct{}

	mu      sync.Mutex
	reports []report
	changed chan struct{} // closed at each report
}

// startNode starts a child that listens there.
func startNode(t *testing.T, h *netns.Host, listen string, env ...string) *node {
	t.Helper()
	cmd := h.Self(t.Context(), append(env, childEnv+"="+listen)...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, stdin: stdin, kill: func() { _ = cmd.Process.Kill() }, ended: make(chan struct{}), changed: make(chan struct{})}
	go func() {
		defer close(n.ended)
		in := bufio.NewScanner(stdout)
		for in.Scan() {
			var r report
			if err := json.Unmarshal(in.Bytes(), &r); err != nil {
				continue
			}
			n.mu.Lock()
			n.reports = append(n.reports, r)
			close(n.changed)
			n.changed = make(chan struct{})
			n.mu.Unlock()
		}
		_ = cmd.Wait()
	}()
	t.Cleanup(n.stop)
	n.id = n.await(0, 20*time.Second, "its start", func(r report) bool { return r.Self != "" }).Self
	return n
}

// stop lets the child end and waits for it.
func (n *node) stop() {
	_ = n.stdin.Close()
	<-n.ended
}

// crash kills the child.
func (n *node) crash() {
	n.kill()
	<-n.ended
}

// mark is a place in the child's reports: now.
func (n *node) mark() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.reports)
}

// await waits for a report after a mark.
func (n *node) await(mark int, limit time.Duration, what string, is func(report) bool) report {
	n.t.Helper()
	timeout := time.After(limit)
	for {
		n.mu.Lock()
		reports, changed := n.reports[mark:], n.changed
		n.mu.Unlock()
		if i := slices.IndexFunc(reports, is); i >= 0 {
			return reports[i]
		}
		select {
		case <-changed:
		case <-n.ended:
			n.t.Fatalf("waiting for %s: the child has ended; it said %+v", what, n.all())
		case <-timeout:
			n.t.Fatalf("waiting for %s: nothing for %v; it said %+v", what, limit, n.all())
		}
	}
}

func (n *node) all() []report {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.reports)
}

// finds waits until the child has found another one at an address that holds text.
func (n *node) finds(other *node, mark int, text string, limit time.Duration) {
	n.t.Helper()
	n.await(mark, limit, "the other at "+text, func(r report) bool {
		return r.Found == other.id && slices.ContainsFunc(r.Addrs, func(a string) bool { return strings.Contains(a, text) })
	})
}

func (n *node) says(reason Reason, limit time.Duration) report {
	n.t.Helper()
	return n.await(0, limit, string(reason), func(r report) bool { return r.Reason == reason })
}

func TestSource_ThreeHosts(t *testing.T) {
	bridge := netns.New(t).Bridge()
	hosts := []*netns.Host{bridge.Host(), bridge.Host(), bridge.Host()}
	var nodes []*node
	for _, h := range hosts {
		nodes = append(nodes, startNode(t, h, ":0"))
	}
	for i, n := range nodes {
		for j, other := range nodes {
			if i != j {
				n.finds(other, 0, "/ip4/"+hosts[j].IP("eth0").String()+"/tcp/", 3*time.Second)
				n.finds(other, 0, "/ip6/"+hosts[j].IP6("eth0").String()+"/udp/", 3*time.Second)
			}
		}
		for _, r := range n.all() {
			for _, a := range r.Addrs {
				if strings.Contains(a, "/127.") || strings.Contains(a, "/::1") || strings.Contains(a, "/fe80:") {
					t.Errorf("found %s from another host", a)
				}
			}
		}
	}
}

func TestSource_OneMachineLoopbackOnly(t *testing.T) {
	h := netns.New(t).Host()
	a := startNode(t, h, "localhost:0")
	begin := time.Now()
	b := startNode(t, h, ":0")
	a.finds(b, 0, "/ip4/127.0.0.1/tcp/", 2*time.Second)
	b.finds(a, 0, "/ip4/127.0.0.1/udp/", 2*time.Second)
	t.Logf("found %v after the start of the second process", time.Since(begin))
}
