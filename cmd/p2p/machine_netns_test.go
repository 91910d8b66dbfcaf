//go:build linux

package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/netns"
	"github.com/lynn9388/p2p/internal/pace"
	"github.com/lynn9388/p2p/internal/poll"
)

// machine is a host with a node, and perhaps a program with a service.
type machine struct {
	t       *testing.T
	host    *netns.Host
	network string
	home    string
	flags   []string  // of "p2p run", besides those that start gives
	env     []string  // of "p2p run", besides the test's own
	share   string    // what the node said to give to others
	out     string    // what the node printed
	log     string    // what it logged
	id      string    // the node's
	service string    // the ID of the program with the service
	began   time.Time // when the node was started
}

// newMachine makes a host whose node does not run yet.
func newMachine(t *testing.T, b *netns.Bridge, network string) *machine {
	t.Helper()
	return &machine{t: t, host: b.Host(), network: network, home: shortHome(t, "home")}
}

// start starts the node, with a home and a network name and no other flag than the machine has.
func (m *machine) start() {
	m.t.Helper()
	m.began = time.Now()
	m.share = strings.TrimPrefix(m.run("p2p", append([]string{"run", "--home", m.home, "--network", m.network}, m.flags...)...), "share: ")
	m.id, _, _ = strings.Cut(m.share, "@")
}

// serve starts a program with a service on the same host.
func (m *machine) serve() {
	m.t.Helper()
	out, log := m.out, m.log
	line := m.run("shapes", "-network", m.network, "-listen", ":0")
	m.out, m.log = out, log
	m.service, _, _ = strings.Cut(strings.TrimPrefix(line, "share: "), "@")
}

func (m *machine) run(program string, args ...string) string {
	m.t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := m.host.Command(m.t.Context(), path, args...)
	cmd.Env = append(os.Environ(), m.env...)
	dir := m.t.TempDir()
	m.out, m.log = filepath.Join(dir, "out"), filepath.Join(dir, "err")
	p, err := start(cmd, m.out, m.log)
	if err != nil {
		m.t.Fatal(err)
	}
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

// listedPeer is a peer as "p2p peers ls -o json" prints it.
type listedPeer struct {
	ID    string   `json:"id"`
	State string   `json:"state"`
	Path  string   `json:"path"`
	Addrs []string `json:"addrs"`
}

// peers lists the known peers of the machine's node.
func (m *machine) peers() []listedPeer {
	m.t.Helper()
	out, err := exec.CommandContext(m.t.Context(), "p2p", "--home", m.home, "peers", "ls", "-o", "json").Output()
	if err != nil {
		return nil
	}
	var peers []listedPeer
	if err := json.Unmarshal(out, &peers); err != nil {
		m.t.Fatalf("%v in %s", err, out)
	}
	return peers
}

// neighbor tells whether the machine's node has the other's as a neighbor, at an address if that is not empty.
func (m *machine) neighbor(other *machine, ip string) bool {
	m.t.Helper()
	return slices.ContainsFunc(m.peers(), func(p listedPeer) bool {
		return p.ID == other.id && p.State == "neighbor" && (ip == "" || slices.ContainsFunc(p.Addrs, func(a string) bool { return strings.Contains(a, "/"+ip+"/") }))
	})
}

// printed tells whether the node printed a line with all of the words.
func (m *machine) printed(words ...string) bool {
	m.t.Helper()
	text, err := os.ReadFile(m.out)
	return err == nil && hasLine(string(text), words...)
}

// hasLine tells whether a text has a line with all of the words.
func hasLine(text string, words ...string) bool {
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			return true
		}
	}
	return false
}

// allNeighbors tells whether every node has every other as a neighbor.
func allNeighbors(machines ...*machine) bool {
	for _, a := range machines {
		peers := a.peers()
		for _, b := range machines {
			if a != b && !slices.ContainsFunc(peers, func(p listedPeer) bool { return p.ID == b.id && p.State == "neighbor" }) {
				return false
			}
		}
	}
	return true
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

// within waits for something that must be so some time after begin, and logs when it was. The long form of the tests holds
// the promised time; otherwise a machine that is busy with other tests gets three times as long.
func within(t *testing.T, begin time.Time, d time.Duration, what string, is func() bool) {
	t.Helper()
	if !pace.Long() {
		d *= 3
	}
	poll.Until(t, d-time.Since(begin), poll.Not(what, is))
	t.Logf("%s: after %v", what, time.Since(begin).Round(10*time.Millisecond))
}
