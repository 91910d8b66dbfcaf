package host_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host"
)

// crashHome, in the environment of a test binary, makes it open that home, print the ID and wait to be killed.
const crashHome = "HOST_TEST_CRASH_HOME"

// crashRuns, in the environment, is how often TestIdentity_Killed kills; the long run is made by hand.
const crashRuns = "HOST_TEST_CRASH_RUNS"

// startAndWait is the process that is killed.
func startAndWait(dir string) int {
	h, err := host.OpenHome(dir)
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	defer h.Close()
	fmt.Println("opened")
	key, err := h.Identity()
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println(id)
	time.Sleep(10 * time.Second) // the parent kills long before
	return 0
}

// killed starts a node's first moments in dir, kills it after the delay or as soon as stop says so, and returns what it
// had printed.
func killed(t *testing.T, dir string, delay time.Duration, stop func(line string) bool) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), crashHome+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	var lines []string
	for s := bufio.NewScanner(out); s.Scan(); {
		lines = append(lines, s.Text())
		if stop(s.Text()) {
			timer.Reset(time.Duration(rand.Int64N(int64(2 * time.Millisecond))))
		}
	}
	_ = cmd.Wait()
	return lines
}

// TestIdentity_Killed kills a process at random moments of its first start. The identity must be absent or whole, and
// the same for ever once it was printed. Half of the kills fall between the first file operation and the print.
func TestIdentity_Killed(t *testing.T) {
	t.Parallel()
	runs := 30
	if n, err := strconv.Atoi(os.Getenv(crashRuns)); err == nil {
		runs = n
	}
	if testing.Short() {
		runs = 4
	}
	between := 0
	for i := range runs {
		dir := filepath.Join(t.TempDir(), "home")
		delay := time.Duration(rand.Int64N(int64(60 * time.Millisecond)))
		stop := func(string) bool { return false }
		if i%2 == 0 { // aim between the first file operation and the print
			delay, stop = 5*time.Second, func(line string) bool { return line == "opened" }
		}
		lines := killed(t, dir, delay, stop)
		printed := ""
		for _, l := range lines {
			if strings.HasPrefix(l, "error") {
				t.Fatal(l)
			}
			if l != "opened" {
				printed = l
			}
		}
		if len(lines) > 0 && printed == "" {
			between++
		}
		first, err := identity(dir)
		if err != nil {
			t.Fatalf("run %d: after the kill: %v", i, err)
		}
		if printed != "" && first.String() != printed {
			t.Fatalf("run %d: %s was printed, now it is %s", i, printed, first)
		}
		if second, err := identity(dir); err != nil || second != first {
			t.Fatalf("run %d: %s, then %s, %v", i, first, second, err)
		}
		if got := names(t, dir); len(got) != 2 {
			t.Fatalf("run %d: left in the home: %v", i, got)
		}
	}
	t.Logf("%d kills, %d of them between the first file operation and the print", runs, between)
}

func TestOpenHome_AfterAKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "home")
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		killed(t, dir, time.Minute, func(line string) bool {
			if line != "opened" {
				if h, err := host.OpenHome(dir); err == nil {
					t.Error("two processes hold the home")
					_ = h.Close()
				}
			}
			return line != "opened"
		})
	}()
	<-seen
	openHome(t, dir)
}
