package main

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// seedEnv makes this test's binary the example.
const seedEnv = "P2P_TEST_SEED"

func TestMain(m *testing.M) {
	if os.Getenv(seedEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// seed runs the example until the test ends. The lines of its log that have text in them come over the channel.
func seed(t *testing.T, port, text string) <-chan string {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, os.Args[0], "-port", port)
	cmd.Env = append(os.Environ(), seedEnv+"=1")
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			if !strings.Contains(s.Text(), text) {
				continue
			}
			select {
			case lines <- s.Text():
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() {
		kill()
		<-done
		_ = cmd.Wait() // it was killed
	})
	return lines
}

// next is the next line; it fails the test when there is none.
func next(t *testing.T, lines <-chan string) string {
	t.Helper()
	select {
	case line, ok := <-lines:
		if !ok {
			t.Fatal("the example has ended")
		}
		return line
	case <-time.After(30 * time.Second):
		t.Fatal("nothing for 30 s")
	}
	return ""
}

// firstPort is where the others look for the first. When the machine uses the port for something else the first
// listens at another, and multicast leads the others to it.
func firstPort(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "localhost:9388")
	if err != nil {
		t.Log(err)
		return "0"
	}
	_ = l.Close()
	return "9388"
}

// The example in three processes, the first last: each finds the two others.
func TestSeed_NodesOfOneMachineFindEachOther(t *testing.T) {
	var joined []<-chan string
	for _, port := range []string{"0", "0", firstPort(t)} {
		joined = append(joined, seed(t, port, "neighbor joined"))
	}
	for _, lines := range joined {
		for others := map[string]bool{}; len(others) < 2; {
			_, peer, _ := strings.Cut(next(t, lines), "peer=")
			others[strings.Fields(peer)[0]] = true
		}
	}
}

func TestSeed_SaysWhyItDoesNotStart(t *testing.T) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	lines := seed(t, port, "did not start")
	if line := next(t, lines); !strings.Contains(line, port) {
		t.Errorf("it logs %q, want the port %s in it", line, port)
	}
	if line, ok := <-lines; ok {
		t.Errorf("it goes on: %s", line)
	}
}
