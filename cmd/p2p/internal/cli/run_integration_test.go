package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/cmd/p2p/internal/testservice"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/p2ptest"
)

// patience bounds every wait; a busy machine takes its time.
const patience = 30 * time.Second

// screen is an output that may be read while it is written.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// running is a "p2p run" in this process.
type running struct {
	home   string
	stdout *screen
	stderr *screen
	stop   func() error // as a signal does, once
}

// startRun starts a node with a home and waits for its first lines.
func startRun(t *testing.T, network string, opts runOptions) *running {
	t.Helper()
	dir, err := os.MkdirTemp("", "p2p") //nolint:usetesting // the path of t.TempDir may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &running{home: filepath.Join(dir, "home"), stdout: new(screen), stderr: new(screen)}
	a := &app{stdin: strings.NewReader(""), stdout: r.stdout, stderr: r.stderr}
	if opts.ephemeral {
		r.home = ""
	}
	a.home = r.home
	opts.network, opts.logLevel = network, "warn"
	if opts.listen == "" {
		opts.listen = "localhost:0"
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.run(ctx, opts, true) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	poll.Until(t, patience, poll.Not("the first lines", func() bool { return strings.Contains(r.stdout.String(), "home: ") }))
	return r
}

// id is the node's, from its first line.
func (r *running) id() string {
	first, _, _ := strings.Cut(r.stdout.String(), "\n")
	id, _, _ := strings.Cut(strings.TrimPrefix(first, "share: "), "@")
	return id
}

// do runs another command for the node.
func (r *running) do(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code = Main(append([]string{"--home", r.home}, args...), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// startService starts a node of a user's program, with a service.
func startService(t *testing.T, network, place string) *p2p.Node {
	t.Helper()
	n := p2p.NewNode("localhost:0", append(p2ptest.Options(network), p2p.WithName("program"))...)
	testservice.RegisterShapeServiceServer(n, testservice.Server{})
	if err := n.JoinNetwork(place); err != nil {
		t.Fatal(err)
	}
	if err := n.StartServer(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// withService starts a node of the command beside one with a service.
func withService(t *testing.T) (r *running, program *p2p.Node) {
	t.Helper()
	network := p2ptest.Network()
	r = startRun(t, network, runOptions{name: "first"})
	place, _, _ := strings.Cut(strings.TrimPrefix(r.stdout.String(), "share: "), "\n")
	program = startService(t, network, place)
	poll.Until(t, patience, poll.Not("the service is known", func() bool {
		_, services, _ := r.do(t, "services", "ls")
		_, peers, _ := r.do(t, "peers", "ls", "--neighbors")
		return strings.Contains(services, "ShapeService") && strings.Contains(peers, program.ID().String())
	}))
	return r, program
}

// keys returns the keys of an object, or of the first object of a list, in a JSON document.
func keys(t *testing.T, doc string) []string {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(doc), &value); err != nil {
		t.Fatalf("%v in %s", err, doc)
	}
	if list, ok := value.([]any); ok {
		if len(list) == 0 {
			t.Fatal("an empty list")
		}
		value = list[0]
	}
	object, ok := value.(map[string]any)
	if !ok {
		t.Fatalf("no object: %s", doc)
	}
	return slices.Sorted(maps.Keys(object))
}

// helpOf returns the long help of a command.
func helpOf(t *testing.T, args ...string) string {
	t.Helper()
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	cmd, _, err := a.root().Find(args)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(cmd.Long, `a peer as in "peers ls"`) {
		return cmd.Long + helpOf(t, "peers", "ls")
	}
	return cmd.Long
}

// TestScreens_JSONAsDocumented runs every command that has JSON, and looks up each key in the command's help.
func TestScreens_JSONAsDocumented(t *testing.T) {
	r, program := withService(t)
	id := program.ID().String()
	for _, args := range [][]string{
		{"id"},
		{"version"},
		{"status"},
		{"peers", "ls"},
		{"peers", "ls", "--neighbors"},
		{"peers", "info", id},
		{"services", "ls"},
		{"services", "info", id},
		{"services", "info", "shapes.v1.ShapeService"},
		{"services", "stats", id},
		{"services", "stats"},
		{"ping", id, "-c", "2", "-i", "1ms"},
	} {
		code, out, stderr := r.do(t, append(args, "-o", "json")...)
		if code != exitDone || stderr != "" {
			t.Errorf("%v: exit code %d: %s", args, code, stderr)
			continue
		}
		help := helpOf(t, args...)
		for _, k := range keys(t, out) {
			if !strings.Contains(help, `"`+k+`"`) {
				t.Errorf("%v: the key %q is not in the help", args, k)
			}
			if strings.ToLower(k) != k {
				t.Errorf("%v: the key %q is not in snake case", args, k)
			}
		}
		// The same as a table: something, and no JSON.
		code, out, _ = r.do(t, args...)
		if code != exitDone || out == "" || strings.HasPrefix(out, "{") || strings.HasPrefix(out, "[") {
			t.Errorf("%v as a table: exit code %d: %s", args, code, out)
		}
	}
}

func TestRun_FirstLines(t *testing.T) {
	r := startRun(t, p2ptest.Network(), runOptions{name: "first", verbose: true})
	lines := strings.Split(r.stdout.String(), "\n")
	if _, err := peer.Decode(r.id()); err != nil {
		t.Errorf("the first line is %q: %v", lines[0], err)
	}
	for i, want := range []string{"share: " + r.id() + "@127.0.0.1:", "open to: every process of this machine", "listening: port ", "home: " + r.home, "address: /ip4/127.0.0.1/tcp/"} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %d is %q, want %q", i+1, lines[i], want)
		}
	}
	if code, out, _ := r.do(t, "id"); code != exitDone || strings.TrimSpace(out) != r.id() {
		t.Errorf("exit code %d, %s", code, out)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if r.stderr.String() != "" {
		t.Errorf("it logged: %s", r.stderr.String())
	}
	if code, _, stderr := r.do(t, "status"); code != exitNoNode || !strings.Contains(stderr, "p2p run") {
		t.Errorf("after the end: exit code %d, %s", code, stderr)
	}
}

func TestRun_Ephemeral(t *testing.T) {
	r := startRun(t, p2ptest.Network(), runOptions{ephemeral: true})
	if !strings.Contains(r.stdout.String(), "home: none") {
		t.Error(r.stdout.String())
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

func TestRun_AllowFileIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "friends.txt")
	if err := os.WriteFile(file, []byte("# nobody yet\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startRun(t, p2ptest.Network(), runOptions{allow: file})
	if want := "open to: the peers listed in " + file + "\n"; !strings.Contains(r.stdout.String(), want) {
		t.Errorf("%q is missing in %s", want, r.stdout.String())
	}
	code, out, _ := r.do(t, "status")
	if code != exitDone || !strings.Contains(out, "the peers listed in "+file) {
		t.Errorf("exit code %d, %s", code, out)
	}
}

// TestRun_SaysWhoComesAndGoes follows a peer's life on the screen of another node.
func TestRun_SaysWhoComesAndGoes(t *testing.T) {
	r, program := withService(t)
	id := program.ID().String()
	line := func(words ...string) func() bool {
		return func() bool {
			for l := range strings.Lines(r.stdout.String()) {
				if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(l, w) }) {
					return true
				}
			}
			return false
		}
	}
	poll.Until(t, patience, poll.Not("it joined", line("joined", "(program)", id)))
	poll.Until(t, patience, poll.Not("its service", line("service added", "shapes.v1.ShapeService", id)))
	if err := program.Close(); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, patience, poll.Not("it left", line("left", id)))
}

// TestRun_SaysWhyNobodyIsThere joins a place where nobody is.
func TestRun_SaysWhyNobodyIsThere(t *testing.T) {
	t.Parallel()
	r := startRun(t, p2ptest.Network(), runOptions{join: []string{"127.0.0.1:1"}})
	poll.Until(t, patience, poll.Not("joining does not help", func() bool {
		return strings.Contains(r.stdout.String(), "no neighbor yet by joining 127.0.0.1:1")
	}))
	_, out, _ := r.do(t, "status")
	if n := strings.Count(out, "127.0.0.1:1:"); n != 1 {
		t.Errorf("the status tells it %d times:\n%s", n, out)
	}
	if n := strings.Count(r.stdout.String(), "no neighbor yet"); n != 1 {
		t.Errorf("it was printed %d times:\n%s", n, r.stdout.String())
	}
}

func TestCall_Input(t *testing.T) {
	r, _ := withService(t)
	var out, errs strings.Builder
	code := Main([]string{"--home", r.home, "services", "call", "shapes.v1.ShapeService/Up", "-d", "@"}, strings.NewReader(`{"text":"a"}{"text":"b"}`), &out, &errs)
	if code != exitDone || !strings.Contains(out.String(), "a b") {
		t.Errorf("exit code %d, %s, %s", code, out.String(), errs.String())
	}
	// "@" is standard input only as the whole of -d, and text is never a file's name.
	code, _, stderr := r.do(t, "services", "call", "shapes.v1.ShapeService/One", "-d", "@/etc/passwd")
	if code != exitUsage || !strings.Contains(stderr, "not JSON") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

func TestPing_LostAnswers(t *testing.T) {
	t.Parallel()
	r, program := withService(t)
	if err := program.Close(); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := r.do(t, "ping", program.ID().String(), "-c", "1")
	if code != exitFailed || stdout != "" || stderr == "" {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
}

func TestComplete_Peers(t *testing.T) {
	r, program := withService(t)
	if code, _, stderr := r.do(t, "peers", "pin", program.ID().String(), "friend"); code != exitDone {
		t.Fatal(stderr)
	}
	a := &app{home: r.home}
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	words, _ := a.completePeers(cmd, nil, "")
	want := []string{"friend\t" + program.ID().String(), program.ID().String() + "\tfriend neighbor"}
	if !slices.Equal(words, want) {
		t.Errorf("got %q, want %q", words, want)
	}
	if words, _ := a.completePeers(cmd, []string{"one"}, ""); len(words) != 0 {
		t.Errorf("a second argument: %q", words)
	}
	a.home = filepath.Join(t.TempDir(), "none")
	if words, _ := a.completePeers(cmd, nil, ""); len(words) != 0 {
		t.Errorf("without a node: %q", words)
	}
}
