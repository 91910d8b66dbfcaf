//go:build linux

package mdns

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
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

func TestSource_AddressChanges(t *testing.T) {
	t.Parallel()
	bridge := netns.New(t).Bridge()
	ha, hb := bridge.Host(), bridge.Host()
	a, b := startNode(t, ha, ":0"), startNode(t, hb, ":0")
	a.finds(b, 0, hb.IP("eth0").String(), 3*time.Second)
	mark := a.mark()
	ip4, ip6 := hb.Renumber("eth0")
	begin := time.Now()
	a.finds(b, mark, "/ip4/"+ip4.String()+"/tcp/", 5*time.Second)
	a.finds(b, mark, "/ip6/"+ip6.String()+"/tcp/", 5*time.Second)
	t.Logf("found at the new address after %v", time.Since(begin))
}

func TestSource_InterfaceAddedLater(t *testing.T) {
	t.Parallel()
	lab := netns.New(t)
	bridge := lab.Bridge()
	ha, hb := bridge.Host(), lab.Host()
	a, b := startNode(t, ha, ":0"), startNode(t, hb, ":0")
	b.says(NoInterface, 5*time.Second)
	bridge.Attach(hb, "wlan0")
	begin := time.Now()
	a.finds(b, 0, hb.IP("wlan0").String(), 5*time.Second)
	b.finds(a, 0, ha.IP("eth0").String(), 5*time.Second)
	t.Logf("found over the new interface after %v", time.Since(begin))
}

func TestSource_CablePulled(t *testing.T) {
	t.Parallel()
	bridge := netns.New(t).Bridge()
	ha, hb := bridge.Host(), bridge.Host()
	a, b := startNode(t, ha, ":0"), startNode(t, hb, ":0")
	a.finds(b, 0, hb.IP("eth0").String(), 3*time.Second)
	b.finds(a, 0, ha.IP("eth0").String(), 3*time.Second)
	hb.Pull("eth0")
	time.Sleep(4 * time.Second)
	markA, markB := a.mark(), b.mark()
	hb.Plug("eth0")
	begin := time.Now()
	a.finds(b, markA, hb.IP("eth0").String(), 3*time.Second)
	b.finds(a, markB, ha.IP("eth0").String(), 3*time.Second)
	t.Logf("heard %v after the cable was back", time.Since(begin))
}

func TestSource_CrashAndRestart(t *testing.T) {
	bridge := netns.New(t).Bridge()
	ha, hb := bridge.Host(), bridge.Host()
	a, b := startNode(t, ha, ":0"), startNode(t, hb, ":0")
	a.finds(b, 0, hb.IP("eth0").String(), 3*time.Second)
	a.crash()
	a = startNode(t, ha, ":0")
	a.finds(b, 0, hb.IP("eth0").String(), 3*time.Second)
	b.finds(a, 0, ha.IP("eth0").String(), 3*time.Second)
}

func TestSource_OtherProgramsOfTheMachine(t *testing.T) {
	t.Parallel()
	bridge := netns.New(t).Bridge()
	ha, hb := bridge.Host(), bridge.Host()
	// A system's own responder, which shares the port as all do.
	holdPort(t, ha, true)
	a, a2, b := startNode(t, ha, ":0"), startNode(t, ha, ":0"), startNode(t, hb, ":0")
	for _, n := range []*node{a, a2} {
		n.finds(b, 0, hb.IP("eth0").String(), 3*time.Second)
		b.finds(n, 0, ha.IP("eth0").String(), 3*time.Second)
	}
	a.finds(a2, 0, "/127.0.0.1/", 3*time.Second)
	a2.finds(a, 0, "/127.0.0.1/", 3*time.Second)
}

// holdPort opens the port of mDNS in a host until the test ends.
func holdPort(t *testing.T, h *netns.Host, shared bool) {
	t.Helper()
	var pc net.PacketConn
	err := h.Do(func() (err error) {
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			if !shared {
				return nil
			}
			var err error
			cerr := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) })
			return errors.Join(cerr, err)
		}}
		pc, err = lc.ListenPacket(t.Context(), "udp", ":5353")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
}

func TestSource_SaysWhyNobody(t *testing.T) {
	t.Parallel()
	lab := netns.New(t)
	for name, c := range map[string]struct {
		build  func() *netns.Host
		listen string
		want   Reason
		text   string
	}{
		"only loopback":       {func() *netns.Host { return lab.Host() }, ":0", NoInterface, "connect a network"},
		"listens on loopback": {func() *netns.Host { return lab.Bridge().Host() }, "localhost:0", LocalOnly, "localhost"},
		"nobody else":         {func() *netns.Host { return lab.Bridge().Host() }, ":0", Silent, "eth0"},
		"a bridge of containers": {func() *netns.Host {
			h := lab.Host()
			lab.Bridge().Attach(h, "docker0")
			return h
		}, ":0", Container, "docker0"},
		"a port that is not shared": {func() *netns.Host {
			h := lab.Bridge().Host()
			holdPort(t, h, false)
			return h
		}, ":0", Refused, "5353"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startNode(t, c.build(), c.listen).says(c.want, 12*time.Second)
			if !strings.Contains(r.Text, c.text) {
				t.Errorf("text %q does not name %q", r.Text, c.text)
			}
		})
	}
}
