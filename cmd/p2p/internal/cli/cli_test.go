package cli

import (
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p/cmd/p2p/internal/dyncall"
)

// command runs the command line in this process, at an empty home.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv(homeVariable, filepath.Join(t.TempDir(), "none"))
	var out, errs strings.Builder
	code = Main(args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestMain_ExitCodes(t *testing.T) {
	for _, tc := range []struct {
		args string
		code int
		text string // on standard error
	}{
		{"", exitDone, ""},
		{"help", exitDone, ""},
		{"peers ls --help", exitDone, ""},
		{"version", exitDone, ""},
		{"completion bash", exitDone, ""},
		{"nonsense", exitUsage, `unknown command "nonsense"`},
		{"--nonsense", exitUsage, "unknown flag"},
		{"peers", exitUsage, "use one of ls, info, connect"},
		{"peers nonsense", exitUsage, `unknown command "nonsense"`},
		{"services", exitUsage, "use one of ls, info, stats, call"},
		{"peers ls more", exitUsage, `unexpected argument "more"`},
		{"peers info", exitUsage, "PEER is missing"},
		{"peers pin x", exitUsage, "NAME is missing"},
		{"peers ls -o xml", exitUsage, "use table or json"},
		{"ping", exitUsage, "PEER is missing"},
		{"ping x -c 0", exitUsage, "at least 1"},
		{"ping x -i -1s", exitUsage, "must not be negative"},
		{"ping x -o xml", exitUsage, "use table or json"},
		{"ping x", exitNoNode, "p2p run"},
		{"version -o", exitUsage, "flag needs an argument"},
		{"run --log-level loud", exitUsage, "use debug, info, warn or error"},
		{"run --ephemeral --home x", exitUsage, "leave one of them out"},
		{"run --listen nonsense", exitUsage, "nonsense"},
		{"run --listen example.com:1", exitUsage, "neither an IP address nor localhost"},
		{"run --join nonsense", exitUsage, "write host:port"},
		{"run --network UPPER", exitUsage, "UPPER"},
		{"run --name " + strings.Repeat("x", 65), exitUsage, "at most 64"},
		{"services call", exitUsage, "package.Service/Method is missing"},
		{"services call x", exitUsage, "write package.Service/Method"},
		{"services call a.S/M -H nonsense", exitUsage, `write "name: value"`},
		{"services call a.S/M -H p2p-x:1", exitUsage, "reserved"},
		{"services call a.S/M --timeout -1s", exitUsage, "must not be negative"},
		{"services call grpc.health.v1.Health/Check", exitUsage, "--peer"},
		{"status", exitNoNode, "p2p run"},
		{"peers ls", exitNoNode, "p2p run"},
		{"peers info x", exitNoNode, "p2p run"},
		{"services ls", exitNoNode, "p2p run"},
		{"services ls more", exitUsage, `unexpected argument "more"`},
		{"services ls --tag x", exitUsage, "want key=value"},
		{"services info", exitUsage, "SERVICE|PEER is missing"},
		{"services info a.S", exitNoNode, "p2p run"},
		{"services stats x@y", exitUsage, "not a peer ID"},
		{"services stats", exitNoNode, "p2p run"},
		{"services call a.S/M --all --peer x", exitUsage, "--peer names one peer"},
		{"services call a.S/M --all", exitNoNode, "p2p run"},
		{"run --tag x", exitUsage, "want key=value"},
		{"doctor x@y", exitUsage, "not a peer ID"},
		{"doctor x y", exitUsage, `unexpected argument "y"`},
		{"doctor x", exitNoNode, "p2p run"},
		{"doctor --join nonsense", exitUsage, "write host:port"},
		{"run --profile moon", exitUsage, "use lan, wan or relay"},
		{"run --profile wan", exitUsage, "--open"},
		{"run --profile relay", exitUsage, "--allow FILE"},
		{"run --profile relay --open --allow x", exitUsage, "use one of them"},
		{"run --no-port-mapping", exitUsage, "only --profile wan"},
		{"run --profile wan --open --join nonsense", exitUsage, "write host:port"},
		{"run --profile wan --open --join " + someID, exitUsage, "names no place"},
		{"run --websocket 443", exitUsage, "write host:port"},
		{"pub", exitUsage, "TOPIC is missing"},
		{"pub a;b x", exitUsage, `topic "a;b"`},
		{"pub news @", exitUsage, "@FILE"},
		{"pub news @/no/such", exitFailed, "/no/such"},
		{"pub news x", exitNoNode, "p2p run"},
		{"sub", exitUsage, "TOPIC is missing"},
		{"sub a;b", exitUsage, `topic "a;b"`},
		{"sub news --count -1", exitUsage, "must not be negative"},
		{"sub news", exitNoNode, "p2p run"},
		{"query", exitUsage, "TOPIC is missing"},
		{"query news --timeout 0s", exitUsage, "must be more than 0"},
		{"query news --count -1", exitUsage, "from 0 to"},
		{"query news", exitNoNode, "p2p run"},
		{"services call a.S/M", exitNoNode, "p2p run"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			code, stdout, stderr := command(t, strings.Fields(tc.args)...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if !strings.Contains(stderr, tc.text) {
				t.Errorf("standard error %q, want %q in it", stderr, tc.text)
			}
			if tc.code == exitDone && (stdout == "" || stderr != "") {
				t.Errorf("standard output %q, standard error %q", stdout, stderr)
			}
			if tc.code != exitDone && (stdout != "" || !strings.HasPrefix(stderr, "p2p: ")) {
				t.Errorf("standard output %q, standard error %q", stdout, stderr)
			}
		})
	}
}

func TestMain_ArgumentsAreShownSafely(t *testing.T) {
	for _, args := range [][]string{
		{nasty},
		{"peers", nasty},
		{"peers", "ls", nasty},
		{"version", "-o", nasty},
		{"services", "call", nasty},
		{"services", "info", nasty},
		{"services", "ls", "--tag", nasty},
		{"pub", nasty, "x"},
		{"pub", "news", "@" + nasty},
		{"sub", nasty},
		{"query", nasty},
		{"doctor", nasty},
		{"doctor", "--join", nasty},
		{"run", "--join", nasty},
		{"run", "--listen", nasty},
		{"--home", nasty, "status"},
	} {
		_, _, stderr := command(t, args...)
		requireSafe(t, stderr)
	}
}

// TestCommands_Help looks at the help of every command: what it is for, and an example.
func TestCommands_Help(t *testing.T) {
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	for _, cmd := range a.root().Commands() {
		all := append(cmd.Commands(), cmd)
		for _, c := range all {
			if c.Short == "" || strings.HasSuffix(c.Short, ".") {
				t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
			}
			if c.HasSubCommands() {
				continue
			}
			if c.Example == "" || c.Long == "" {
				t.Errorf("%s has no example, or no long help", c.CommandPath())
			}
			if c.Flags().Lookup("output") != nil && !strings.Contains(c.Long, "JSON") {
				t.Errorf("%s does not document its JSON", c.CommandPath())
			}
			for l := range strings.Lines(c.Long + "\n" + c.Example) {
				if len([]rune(l)) > 102 {
					t.Errorf("%s: a line of %d characters: %s", c.CommandPath(), len([]rune(l)), l)
				}
			}
		}
	}
}

func TestParseHeader(t *testing.T) {
	md, err := parseHeader([]string{"A: 1", "b:2:3", "a:  4 "})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(metadata.MD{"a": {"1", "4"}, "b": {"2:3"}}, md); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", ":", "a", " : x", "a b: c", "p2p-sender: x", "P2P-Sender: x", "grpc-timeout: 1S", "ü: x"} {
		if md, err := parseHeader([]string{bad}); err == nil {
			t.Errorf("%q became %v", bad, md)
		}
	}
}

func TestCallError_HostileStatus(t *testing.T) {
	st, err := status.New(codes.NotFound, nasty).WithDetails(&errdetails.ErrorInfo{Reason: nasty, Domain: "p2p"})
	if err != nil {
		t.Fatal(err)
	}
	text := (&callError{what: "a.S/M", peer: nasty, err: st.Err()}).Error()
	requireSafe(t, text)
	for _, want := range []string{"a.S/M", "NotFound", "google.rpc.ErrorInfo"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %q", want, text)
		}
	}
}

// What a peer put into an error cannot begin a line of the terminal.
func TestReport_HostileErrors(t *testing.T) {
	for name, err := range map[string]error{
		"services": describeFailure("peer", "a.S", &dyncall.UnknownError{Kind: "service", Name: "a.S", Have: []string{nasty}}),
		"status":   status.Error(codes.Unavailable, nasty),
		"call":     &callError{what: "a.S/M", peer: "x", err: status.Error(codes.Unavailable, nasty)},
		"plain":    errors.Join(errors.New("first"), errors.New("tab\t"+nasty)),
	} {
		var b strings.Builder
		a := &app{stderr: &b, started: true}
		if code := a.report(a.root(), err); code != exitFailed {
			t.Errorf("%s: exit code %d", name, code)
		}
		requireSafe(t, b.String())
	}
}

func TestMessage(t *testing.T) {
	if got := message(status.Error(codes.Unavailable, "gone")); got != "gone" {
		t.Errorf("got %q", got)
	}
	if got := message(&callError{what: "a.S/M", peer: "x", err: status.Error(codes.Unavailable, "gone")}); !strings.Contains(got, "Unavailable") {
		t.Errorf("the code of a call is missing: %q", got)
	}
	if got := message(errors.New("plain")); got != "plain" {
		t.Errorf("got %q", got)
	}
}

func TestLogger_IsSafe(t *testing.T) {
	var b strings.Builder
	log := newLogger(&b, slog.LevelDebug, new(phase))
	log.Info("message", "peer", nasty, "err", errors.New(nasty))
	log.With("addr", nasty).WithGroup("g").Warn(nasty)
	requireSafe(t, b.String())
	if n := strings.Count(b.String(), "\n"); n != 2 {
		t.Errorf("two records in %d lines: %q", n, b.String())
	}
}

func TestLogger_LeavesOutErrorsOfTheStart(t *testing.T) {
	var b strings.Builder
	now := new(phase)
	log := newLogger(&b, slog.LevelWarn, now).With("a", 1).WithGroup("g")
	now.starting.Store(true)
	log.Error("first")
	log.Warn("second")
	now.starting.Store(false)
	log.Error("third")
	if got := b.String(); strings.Contains(got, "first") || !strings.Contains(got, "second") || !strings.Contains(got, "third") {
		t.Errorf("got %q", got)
	}
}

// What "p2p run" prints of an event is not logged as well, unless a full log was asked for.
func TestLogger_LeavesOutWhatIsPrinted(t *testing.T) {
	for level, logged := range map[slog.Level]bool{slog.LevelWarn: false, slog.LevelError: false, slog.LevelInfo: true, slog.LevelDebug: true} {
		var b strings.Builder
		now := new(phase)
		log := newLogger(&b, level, now)
		log.Warn("early", "kind", "unreachable")
		now.reporting.Store(true)
		log.Warn("printed", "kind", "unreachable")
		log.Warn("other", "err", "x")
		got := b.String()
		if strings.Contains(got, "printed") != logged {
			t.Errorf("%v: got %q", level, got)
		}
		if level <= slog.LevelWarn && !(strings.Contains(got, "early") && strings.Contains(got, "other")) {
			t.Errorf("%v: got %q", level, got)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add("a: b")
	f.Add("P2P-x: 1")
	f.Add(": \x00")
	f.Fuzz(func(t *testing.T, line string) {
		md, err := parseHeader([]string{line})
		if err != nil {
			requireSafe(t, err.Error())
			return
		}
		for k := range md {
			if k == "" || strings.HasPrefix(k, "p2p-") || strings.HasPrefix(k, "grpc-") || strings.ContainsAny(k, " :\t") {
				t.Errorf("%q became the name %q", line, k)
			}
		}
	})
}
