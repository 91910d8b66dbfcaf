package p2p_test

import (
	"bufio"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/netns"
	"github.com/lynn9388/p2p/internal/pace"
	"github.com/lynn9388/p2p/internal/poll"
)

// blocks returns the fenced blocks of one language in a document, which has some.
func blocks(t *testing.T, path, language string) []string {
	t.Helper()
	out := blocksIfAny(t, path, language)
	if len(out) == 0 {
		t.Fatalf("%s has no block of %s", path, language)
	}
	return out
}

func blocksIfAny(t *testing.T, path, language string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		if m[1] == language {
			out = append(out, m[2])
		}
	}
	return out
}

// The examples are programs that tests run, so a snippet that stands in one of them works, and so does one that stands
// in a test of the documents.
func TestDocs_SnippetsStandInWhatTestsRun(t *testing.T) {
	programs, err := filepath.Glob("docs_*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir("examples", func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".go" {
			programs = append(programs, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, path := range programs {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	documents, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range append(documents, "README.md") {
		for _, snippet := range blocksIfAny(t, doc, "go") {
			if !slices.ContainsFunc(texts, func(p string) bool { return strings.Contains(p, snippet) }) {
				t.Errorf("%s: no program that a test runs has\n%s", doc, snippet)
			}
		}
	}
}

// A session runs the README's commands on a machine of their own.
type session struct {
	t    *testing.T
	host *netns.Host
	bin  string
	dir  string
	left []string // the README's commands that did not run yet
	vars map[string]string
}

// newSession builds the programs, and takes the commands of the README's section about NATs or the others.
func newSession(t *testing.T, host *netns.Host, nats bool) *session {
	t.Helper()
	s := &session{t: t, host: host, bin: t.TempDir(), dir: t.TempDir(), vars: make(map[string]string)}
	programs := []string{"./examples/seed", "./examples/hello", "./examples/embed", "./examples/workers"}
	if nats {
		programs = []string{"./examples/nat"}
	}
	for _, program := range append(programs, "./cmd/p2p") {
		// Unlike go build, go run takes what it has linked before from its cache.
		build := exec.CommandContext(t.Context(), "go", "run", "-ldflags=-s -w", "-exec", "cp -t "+s.bin, program)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
	}
	for _, block := range blocks(t, "README.md", "sh") {
		if nats != regexp.MustCompile(`--profile|\$|examples/nat`).MatchString(block) {
			continue
		}
		for line := range strings.Lines(block) {
			line, _, _ = strings.Cut(line, " #")
			line = strings.TrimSpace(line)
			if line != "" && line != "go test ./..." && line != "cd examples/seed" {
				s.left = append(s.left, line)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(s.dir, "allowed.txt"), []byte(blocks(t, "README.md", "text")[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// program turns a command of the README into a command line with built binaries.
func (s *session) program(line string) []string {
	for prefix, name := range map[string]string{
		"go run ./cmd/p2p": "p2p", "go run main.go": "seed", "go run ./examples/hello": "hello", "go run ./examples/embed": "embed",
		"go run ./examples/workers": "workers", "go run ./examples/nat": "nat", "p2p": "p2p",
	} {
		if rest, ok := strings.CutPrefix(line, prefix+" "); ok || line == prefix {
			if line == prefix {
				rest = ""
			}
			return append([]string{filepath.Join(s.bin, name)}, s.words(rest)...)
		}
	}
	s.t.Fatalf("no program for %q", line)
	return nil
}

// words splits as a shell does, as far as the README needs it.
func (s *session) words(line string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`'([^']*)'|"\$(\w+)"|(\S+)`).FindAllStringSubmatch(line, -1) {
		out = append(out, m[1]+s.vars[m[2]]+m[3])
	}
	return out
}

func (s *session) command(ctx context.Context, line, home string) *exec.Cmd {
	i := slices.Index(s.left, line)
	if i < 0 {
		s.t.Fatalf("the README has no command %q (any more): the rest is %q", line, s.left)
	}
	s.left = slices.Delete(s.left, i, i+1)
	args := s.program(line)
	cmd := s.host.Command(ctx, args[0], args[1:]...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "P2P_HOME="+filepath.Join(s.dir, home))
	return cmd
}

// output runs a command to its end.
func (s *session) output(line, home string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	out, err := s.command(ctx, line, home).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// begin starts a command that goes on, and returns a function that waits until it has written what matches, and returns the
// last group of that.
func (s *session) begin(line, home string) (wait func(pattern string) string) {
	s.t.Helper()
	cmd := s.command(s.t.Context(), line, home)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	var mu sync.Mutex
	var text strings.Builder
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			mu.Lock()
			text.WriteString(lines.Text() + "\n")
			mu.Unlock()
		}
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-done
		_ = cmd.Wait()
	})
	return func(pattern string) (found string) {
		s.t.Helper()
		poll.Until(s.t, 20*time.Second, func() string {
			mu.Lock()
			defer mu.Unlock()
			if m := regexp.MustCompile(pattern).FindStringSubmatch(text.String()); m != nil {
				found = m[len(m)-1]
				return ""
			}
			return line + " did not say " + pattern + " but\n" + text.String()
		})
		return found
	}
}

// beside lets a test that builds programs run beside others, but for the long form, in which those hold promised times.
func beside(t *testing.T) {
	t.Helper()
	if !pace.Long() {
		t.Parallel()
	}
}

func TestReadme_EveryCommandWorks(t *testing.T) {
	beside(t)
	s := newSession(t, netns.New(t).Bridge().Host(), false)
	seeds := []func(string) string{s.begin("go run main.go -port 9390", ""), s.begin("go run main.go -port 9389", ""), s.begin("go run main.go -port 9388", "")}
	for _, says := range seeds {
		says(`(?s)listening.*this machine only.*neighbor joined.*neighbor joined`)
	}
	s.begin("go run ./cmd/p2p run", "first")(`\Ashare: \S+@\S+:\d+\nopen to: every node`)
	s.begin("p2p run", "second")(`\Ashare: `)
	s.begin("p2p run --allow allowed.txt", "third")(`\Ashare: \S+\nopen to: .*allowed.txt`)
	s.begin("p2p run --join 192.0.2.1:9388", "fourth")(`\Ashare: `)
	s.begin("go run ./examples/hello -serve", "")(`listening`)
	s.begin("go run ./examples/workers -work", "")(`listening`)

	if got := s.output("go run ./examples/hello -name Ada", ""); !strings.Contains(got, "Hello Ada, you call from 12D3Koo") {
		t.Errorf("hello: %s", got)
	}
	if got := s.output("go run ./examples/embed", ""); !strings.Contains(got, "Hello Alice, this is 12D3Koo") {
		t.Errorf("embed: %s", got)
	}
	if got := s.output("go run ./examples/workers -jobs 200", ""); !regexp.MustCompile(`12D3Koo\w+ did 200\n`).MatchString(got) {
		t.Errorf("workers: %s", got)
	}
	if got := s.output("p2p services call hello.v1.GreeterService/Greet -d '{\"name\": \"Ada\"}'", "first"); !strings.Contains(got, "Hello Ada, you call from 12D3Koo") {
		t.Errorf("services call: %s", got)
	}
	if got := s.output("p2p peers ls", "first"); !regexp.MustCompile(`(?m)^neighbor +\(hello\) +12D3Koo`).MatchString(got) {
		t.Errorf("peers ls: %s", got)
	}
	if got := s.output("p2p services ls", "first"); !strings.Contains(got, "hello.v1.GreeterService") {
		t.Errorf("services ls: %s", got)
	}
	if got := s.output("p2p services call hello.v1.GreeterService/Greet --all -d '{\"name\": \"all of you\"}'", "first"); !strings.Contains(got, "Hello all of you, you call from 12D3Koo") {
		t.Errorf("services call --all: %s", got)
	}
	heard := s.begin("p2p sub news", "second")
	heard("subscribed to news")
	if got := s.output("p2p pub news 'the kettle boils'", "first"); !strings.Contains(got, "published 1 message on news") {
		t.Errorf("pub: %s", got)
	}
	heard(`12D3Koo\w+  the kettle boils`)
	if got := s.output("p2p status", "first"); !regexp.MustCompile(`(?m)^peers +[1-9]`).MatchString(got) {
		t.Errorf("status: %s", got)
	}
	if len(s.left) > 0 {
		t.Errorf("the README's commands that nothing ran: %q", s.left)
	}
}
