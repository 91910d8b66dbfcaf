package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lynn9388/p2p/internal/localport"
)

// TestScripts runs the command as its users do: real processes, sockets and files. The scripts have these commands
// beside those of testscript:
//
//	node NAME [flags]      p2p run with the home $WORK/NAME, in the background, until its first line came; it listens on
//	                       localhost unless a flag says otherwise, so that nothing leaves the machine
//	serve NAME [flags]     the same for a program with a service
//	spawn NAME PROGRAM …   any program in the background
//	halt NAME              SIGTERM, and it must end with 0
//	slay NAME              SIGKILL
//	until SECONDS PATTERN PROGRAM [args]   runs it again until its standard output matches
//	code N PROGRAM [args]  runs it and wants that exit code
//	occupy tcp|udp NAME    takes a free port of localhost; $NAME is its number
//	port NAME              a free port of localhost that nobody gets who asks for any; $NAME is its number
//
// For each NAME there are $NAME_ID, $NAME_PLACE, $NAME_SHARE (both together), and the files NAME.out and NAME.err in $WORK.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			p := &processes{running: make(map[string]*process)}
			env.Values[processesKey{}] = p
			env.Defer(p.slayAll)
			env.Setenv("NETWORK", "test-"+strings.ToLower(rand.Text()))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_DATA_HOME", filepath.Join(env.WorkDir, "data"))
			env.Setenv("P2P_HOME", "")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"node":   cmdNode,
			"serve":  cmdServe,
			"spawn":  cmdSpawn,
			"halt":   cmdHalt,
			"slay":   cmdSlay,
			"until":  cmdUntil,
			"code":   cmdCode,
			"occupy": cmdOccupy,
			"port":   cmdPort,
		},
	})
}

type processesKey struct{}

// processes are those that a script has in the background.
type processes struct {
	mu      sync.Mutex
	running map[string]*process
}

type process struct {
	cmd   *exec.Cmd
	first chan string // the first line
	ended chan error
}

// wait returns when the process has ended, and how.
func (r *process) wait() error { return <-r.ended }

func (p *processes) take(name string) *process {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.running[name]
	delete(p.running, name)
	return out
}

func (p *processes) slayAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.running {
		_ = r.cmd.Process.Kill()
		_ = r.wait()
	}
}

// patience bounds every wait in a script; on a loaded machine processes start slowly.
const patience = 30 * time.Second

func processesOf(ts *testscript.TestScript) *processes {
	p, ok := ts.Value(processesKey{}).(*processes)
	if !ok {
		ts.Fatalf("no processes")
	}
	return p
}

func cmdNode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: node NAME [flags]")
	}
	home := ts.MkAbs(args[0])
	background(ts, args[0], "p2p", append([]string{"run", "--home", home, "--network", ts.Getenv("NETWORK"), "--listen", "localhost:0"}, args[1:]...))
}

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: serve NAME [flags]")
	}
	background(ts, args[0], "shapes", append([]string{"-network", ts.Getenv("NETWORK")}, args[1:]...))
}

func cmdSpawn(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: spawn NAME PROGRAM [args]")
	}
	spawn(ts, args[0], args[1], args[2:])
}

// background starts a node and waits for its first line.
func background(ts *testscript.TestScript, name, program string, args []string) {
	r := spawn(ts, name, program, args)
	select {
	case line := <-r.first:
		share, ok := strings.CutPrefix(line, "share: ")
		if !ok {
			ts.Fatalf("%s began with %q", name, line)
		}
		id, place, _ := strings.Cut(share, "@")
		ts.Setenv(name+"_SHARE", share)
		ts.Setenv(name+"_PLACE", place)
		ts.Setenv(name+"_ID", id)
	case <-time.After(patience):
		ts.Fatalf("%s printed nothing", name)
	}
}

func spawn(ts *testscript.TestScript, name, program string, args []string) *process {
	path, err := exec.LookPath(program)
	ts.Check(err)
	// A node outlives this function: the end of the script ends it.
	cmd := exec.CommandContext(context.Background(), path, args...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+ts.Getenv("XDG_DATA_HOME"), "P2P_HOME=", "HOME="+ts.Getenv("HOME"))
	cmd.Dir = ts.MkAbs(".")
	r, err := start(cmd, filepath.Join(ts.Getenv("WORK"), name+".out"), filepath.Join(ts.Getenv("WORK"), name+".err"))
	ts.Check(err)
	p := processesOf(ts)
	p.mu.Lock()
	p.running[name] = r
	p.mu.Unlock()
	return r
}

// start starts a process whose output goes to files.
func start(cmd *exec.Cmd, stdout, stderr string) (*process, error) {
	out, err := os.Create(stdout)
	if err != nil {
		return nil, err
	}
	errs, err := os.Create(stderr)
	if err != nil {
		return nil, err
	}
	cmd.Stderr = errs
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &process{cmd: cmd, first: make(chan string, 1), ended: make(chan error, 1)}
	go func() {
		lines := bufio.NewScanner(pipe)
		for n := 0; lines.Scan(); n++ {
			_, _ = fmt.Fprintln(out, lines.Text())
			if n == 0 {
				r.first <- lines.Text()
			}
		}
		close(r.first)
		err := cmd.Wait()
		_ = errors.Join(out.Close(), errs.Close())
		r.ended <- err
	}()
	return r, nil
}

func cmdHalt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: halt NAME")
	}
	r := processesOf(ts).take(args[0])
	if r == nil {
		ts.Fatalf("%s does not run", args[0])
	}
	ts.Check(r.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-r.ended:
		ts.Check(err)
	case <-time.After(patience):
		_ = r.cmd.Process.Kill()
		_ = r.wait()
		ts.Fatalf("%s did not end", args[0])
	}
}

func cmdSlay(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: slay NAME")
	}
	r := processesOf(ts).take(args[0])
	if r == nil {
		ts.Fatalf("%s does not run", args[0])
	}
	ts.Check(r.cmd.Process.Kill())
	_ = r.wait()
}

func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: until SECONDS PATTERN PROGRAM [args]")
	}
	seconds, err := strconv.ParseFloat(args[0], 64)
	ts.Check(err)
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	deadline := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for {
		err := ts.Exec(args[2], args[3:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("after %s s: %v, and no %#q in:\n%s", args[0], err, args[1], ts.ReadFile("stdout"))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM [args]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d; standard error:\n%s", got, want, ts.ReadFile("stderr"))
	}
}

func cmdOccupy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || args[0] != "tcp" && args[0] != "udp" {
		ts.Fatalf("usage: occupy tcp|udp NAME")
	}
	stream, packets, port, err := localport.Both()
	ts.Check(err)
	if args[0] == "tcp" {
		ts.Check(packets.Close())
		ts.Defer(func() { _ = stream.Close() })
	} else {
		ts.Check(stream.Close())
		ts.Defer(func() { _ = packets.Close() })
	}
	ts.Setenv(args[1], port)
}

func cmdPort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: port NAME")
	}
	port, err := localport.Free()
	ts.Check(err)
	ts.Setenv(args[0], port)
}
