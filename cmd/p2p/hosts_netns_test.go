//go:build linux

package main

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/netns"
)

// machine is a host with a node, and perhaps a program with a service.
type machine struct {
	t       *testing.T
	host    *netns.Host
	network string
	home    string
	out     string // what the node printed
	id      string // the node's
	service string // the ID of the program with the service
	process *process
}

// newMachine makes a host whose node does not run yet.
func newMachine(t *testing.T, b *netns.Bridge, network string) *machine {
	t.Helper()
	return &machine{t: t, host: b.Host(), network: network, home: shortHome(t, "home")}
}

// start starts the node, with a home and a network name and no other flag.
func (m *machine) start() {
	m.t.Helper()
	line := m.run("p2p", "run", "--home", m.home, "--network", m.network)
	m.id, _, _ = strings.Cut(strings.TrimPrefix(line, "share: "), "@")
}

// serve starts a program with a service on the same host.
func (m *machine) serve() {
	m.t.Helper()
	out := m.out
	line := m.run("shapes", "-network", m.network, "-listen", ":0")
	m.out = out
	m.service, _, _ = strings.Cut(strings.TrimPrefix(line, "share: "), "@")
}

func (m *machine) run(program string, args ...string) string {
	m.t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := m.host.Command(m.t.Context(), path, args...)
	dir := m.t.TempDir()
	m.out = filepath.Join(dir, "out")
	m.process, err = start(cmd, m.out, filepath.Join(dir, "err"))
	if err != nil {
		m.t.Fatal(err)
	}
	p := m.process
	m.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.wait()
		if m.t.Failed() {
			for _, name := range []string{"out", "err"} {
				text, _ := os.ReadFile(filepath.Join(dir, name))
				m.t.Logf("%s of %s on %s:\n%s", name, program, m.host.Name(), text)
			}
		}
	})
	select {
	case line := <-p.first:
		return line
	case <-time.After(patience):
		m.t.Fatalf("%s printed nothing", program)
		return ""
	}
}

// cli runs the command for this machine's node. The socket is a file, so it need not run on the host itself.
func (m *machine) cli(args ...string) (string, error) {
	m.t.Helper()
	out, err := exec.CommandContext(m.t.Context(), "p2p", append([]string{"--home", m.home}, args...)...).CombinedOutput()
	return string(out), err
}

// neighbor tells whether the machine's node has the other's as a neighbor, at an address if that is not empty.
func (m *machine) neighbor(other *machine, addr string) bool {
	m.t.Helper()
	out, err := m.cli("peers", "ls", "--neighbors")
	if err != nil {
		return false
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, other.id) && strings.Contains(line, addr) {
			return true
		}
	}
	return false
}

// printed tells whether the node printed a line with all of the words.
func (m *machine) printed(words ...string) bool {
	m.t.Helper()
	text, err := os.ReadFile(m.out)
	if err != nil {
		return false
	}
lines:
	for line := range strings.Lines(string(text)) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		return true
	}
	return false
}

// within waits for something, and fails when it takes too long. The soak test holds the promised time; otherwise a
// machine that is busy with other tests gets three times as long.
func within(t *testing.T, d time.Duration, what string, is func() bool) {
	t.Helper()
	limit := d
	if os.Getenv(soak) == "" {
		limit *= 3
	}
	begin := time.Now()
	for !is() {
		if time.Since(begin) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("%s: after %v", what, time.Since(begin).Round(10*time.Millisecond))
}

func newNetwork() string { return "test-" + strings.ToLower(rand.Text()) }

// allNeighbors tells whether every node has every other as a neighbor.
func allNeighbors(machines []*machine) bool {
	for _, a := range machines {
		for _, b := range machines {
			if a != b && !a.neighbor(b, "") {
				return false
			}
		}
	}
	return true
}

func TestHosts_FindAndCallOneAnother(t *testing.T) {
	t.Parallel()
	bridge := netns.New(t).Bridge()
	network := newNetwork()
	var machines []*machine
	for range 3 {
		machines = append(machines, newMachine(t, bridge, network))
	}
	for _, m := range machines {
		m.start()
	}
	within(t, 3*time.Second, "three hosts see each other", func() bool { return allNeighbors(machines) })
	for _, m := range machines {
		m.serve()
	}
	for i, m := range machines {
		for j, other := range machines {
			word := fmt.Sprintf("from %d to %d", i, j)
			out, err := m.cli("services", "call", "shapes.v1.ShapeService/One", "-d", `{"text": "`+word+`"}`, "--peer", other.service)
			if i == j {
				continue
			}
			if err != nil || !strings.Contains(out, word) {
				t.Errorf("%s by ID: %v\n%s", word, err, out)
			}
		}
		out, err := m.cli("services", "call", "shapes.v1.ShapeService/One", "-d", `{"text": "by name"}`)
		if err != nil || !strings.Contains(out, "by name") {
			t.Errorf("by name from %d: %v\n%s", i, err, out)
		}
	}
}

func TestHosts_CutOffAndBack(t *testing.T) {
	t.Parallel()
	bridge := netns.New(t).Bridge()
	network := newNetwork()
	a, b, c := newMachine(t, bridge, network), newMachine(t, bridge, network), newMachine(t, bridge, network)
	machines := []*machine{a, b, c}
	for _, m := range machines {
		m.start()
	}
	within(t, 3*time.Second, "three hosts see each other", func() bool { return allNeighbors(machines) })
	cut := time.Duration(0)
	if os.Getenv(soak) != "" {
		cut = time.Minute
	}
	c.host.Cut("eth0")
	end := time.Now().Add(cut)
	within(t, 40*time.Second, "the loss is noticed on both sides", func() bool { return !a.neighbor(c, "") && !c.neighbor(a, "") && !c.neighbor(b, "") })
	time.Sleep(time.Until(end))
	c.host.Mend("eth0")
	within(t, 5*time.Second, "neighbors again", func() bool { return allNeighbors(machines) })
}

func TestHosts_AddressChanges(t *testing.T) {
	t.Parallel()
	bridge := netns.New(t).Bridge()
	network := newNetwork()
	a, b := newMachine(t, bridge, network), newMachine(t, bridge, network)
	a.start()
	b.start()
	within(t, 3*time.Second, "two hosts see each other", func() bool { return allNeighbors([]*machine{a, b}) })
	ip4, ip6 := b.host.Renumber("eth0")
	within(t, 5*time.Second, "found at the new address", func() bool {
		return a.neighbor(b, ip4.String()+":") || a.neighbor(b, "["+ip6.String()+"]")
	})
	out, err := a.cli("ping", b.id, "-c", "1")
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestHosts_Firewalled(t *testing.T) {
	t.Parallel()
	bridge := netns.New(t).Bridge()
	network := newNetwork()
	a, b := newMachine(t, bridge, network), newMachine(t, bridge, network)
	a.host.DropInbound()
	b.host.DropInbound()
	a.start()
	b.start()
	within(t, 10*time.Second, "each says that it cannot reach the other", func() bool {
		return a.printed("unreachable", b.id, "firewall") && b.printed("unreachable", a.id, "firewall")
	})
	within(t, time.Second, "the status says so, too", func() bool {
		out, err := a.cli("status")
		return err == nil && strings.Contains(out, b.id) && strings.Contains(out, "does not answer")
	})
}

func TestHosts_CopiedHome(t *testing.T) {
	t.Parallel()
	bridge := netns.New(t).Bridge()
	network := newNetwork()
	a, b := newMachine(t, bridge, network), newMachine(t, bridge, network)
	a.start()
	copyHome(t, a.home, b.home)
	b.start()
	if a.id != b.id {
		t.Fatalf("the copy has the identity %s, not %s", b.id, a.id)
	}
	within(t, 5*time.Second, "both name the clone", func() bool {
		return a.printed("cloned", b.host.IP("eth0").String()) && b.printed("cloned", a.host.IP("eth0").String())
	})
}

// copyHome copies the files of a home, not its socket.
func copyHome(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, d.Name()), data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestHosts_ThirtyOne(t *testing.T) {
	if os.Getenv(soak) == "" {
		t.Skip(soak + " is not set: thirty-one nodes keep a small machine busy")
	}
	bridge := netns.New(t).Bridge()
	network := newNetwork()
	var machines []*machine
	for range 31 {
		m := newMachine(t, bridge, network)
		m.start()
		machines = append(machines, m)
	}
	for _, m := range machines {
		within(t, 30*time.Second, "30 others are listed", func() bool {
			out, err := m.cli("peers", "ls")
			return err == nil && strings.Count(out, "12D3KooW") == 30
		})
	}
}
