package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/pace"
)

// TestRun_SecondNodeListsTheFirst is the main promise: two nodes on one machine, each with a home of its own, find each
// other. They listen on this machine only, for a test has nothing to say on the networks that a machine happens to be
// in; without that flag it is tested on hosts that are made for it.
func TestRun_SecondNodeListsTheFirst(t *testing.T) {
	foundHere(t, exec.CommandContext, "--listen", "localhost:0")
}

// foundHere starts pairs of nodes with command, and measures the time from the second one's start until it lists the
// first. The long form does it ten times and wants a median of two seconds at most.
func foundHere(t *testing.T, command func(ctx context.Context, name string, args ...string) *exec.Cmd, flags ...string) {
	t.Helper()
	p2p, err := exec.LookPath("p2p")
	if err != nil {
		t.Fatal(err)
	}
	rounds, limit := 2, 10*time.Second
	if pace.Long() {
		rounds, limit = 10, 2*time.Second
	}
	var took []time.Duration
	for range rounds {
		network := "test-" + strings.ToLower(rand.Text())
		homes := []string{shortHome(t, "a"), shortHome(t, "b")}
		var id string
		var begin time.Time
		for _, home := range homes {
			begin = time.Now()
			line := runNode(t, command(t.Context(), p2p, append([]string{"run", "--home", home, "--network", network}, flags...)...))
			if id == "" {
				id, _, _ = strings.Cut(strings.TrimPrefix(line, "share: "), "@")
			}
		}
		for !lists(t, command(t.Context(), p2p, "--home", homes[1], "peers", "ls", "-o", "json"), id) {
			if time.Since(begin) > patience {
				t.Fatalf("the second node does not list %s", id)
			}
			time.Sleep(10 * time.Millisecond)
		}
		took = append(took, time.Since(begin).Round(time.Millisecond))
	}
	slices.Sort(took)
	median := took[len(took)/2]
	t.Logf("the second node listed the first after %v, median %v", took, median)
	if median > limit {
		t.Errorf("median %v, want at most %v", median, limit)
	}
}

// shortHome returns a folder that does not exist, with a path short enough for a socket.
func shortHome(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "p2p") //nolint:usetesting // the path of t.TempDir may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, name)
}

// runNode starts a node that is killed at the end of the test, and returns its first line.
func runNode(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	dir := t.TempDir()
	r, err := start(cmd, filepath.Join(dir, "out"), filepath.Join(dir, "err"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = r.wait()
	})
	select {
	case line := <-r.first:
		if strings.HasPrefix(line, "share: ") {
			return line
		}
		text, _ := os.ReadFile(filepath.Join(dir, "err"))
		t.Fatalf("it began with %s, and said: %s", strconv.Quote(line), text)
	case <-time.After(patience):
		t.Fatal("it printed nothing")
	}
	return ""
}

// lists tells whether the JSON that a command prints is a list with an element of that ID.
func lists(t *testing.T, cmd *exec.Cmd, id string) bool {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		return false
	}
	type listed struct {
		ID string `json:"id"`
	}
	var peers []listed
	if err := json.Unmarshal(out, &peers); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return slices.Contains(peers, listed{id})
}
