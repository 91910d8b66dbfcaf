package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/pace"
)

// firstStart is what was seen of a start that was killed.
type firstStart struct {
	touched bool          // a file operation was seen before the kill
	printed string        // the ID, if it was printed
	toTouch time.Duration // from exec to the first file operation
	toPrint time.Duration // from there to the print
}

// When a first start is killed: some time after one of its moments. The zero value never kills.
type when struct {
	after  string // "exec", "touch" or "print"
	within time.Duration
}

// killedStart runs p2p run with a home that is not there, and kills it.
func killedStart(t *testing.T, home, network string, w when) firstStart {
	t.Helper()
	path, err := exec.LookPath("p2p")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "run", "--home", home, "--network", network, "--listen", "127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var seen firstStart
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func(moment string) {
		if moment == w.after {
			delay := time.Duration(mrand.Int64N(int64(w.within) + 1))
			time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
		}
	}
	kill("exec")
	touched, stop := make(chan time.Time, 1), make(chan struct{})
	go func() {
		// The folder is the first thing that a first start makes.
		for {
			if _, err := os.Stat(home); err == nil {
				kill("touch")
				touched <- time.Now()
				return
			}
			select {
			case <-stop:
				close(touched)
				return
			case <-time.After(100 * time.Microsecond):
			}
		}
	}()
	for s := bufio.NewScanner(out); s.Scan(); {
		if share, ok := strings.CutPrefix(s.Text(), "share: "); ok {
			seen.printed, _, _ = strings.Cut(share, "@")
			seen.toPrint = time.Since(begin)
			kill("print")
			if w.after == "" {
				_ = cmd.Process.Kill()
			}
		}
	}
	_ = cmd.Wait()
	close(stop)
	if at, ok := <-touched; ok {
		seen.touched, seen.toTouch = true, at.Sub(begin)
		seen.toPrint = max(0, seen.toPrint-seen.toTouch) // the print may be read before the folder is seen
	}
	return seen
}

// TestRun_KilledDuringItsFirstStart kills the command at moments from exec to 100 ms after it printed its ID. The
// identity is absent or whole then, and never another one once it was printed.
func TestRun_KilledDuringItsFirstStart(t *testing.T) {
	if _, err := exec.LookPath("p2p"); err != nil {
		t.Skip("no command p2p: the test binary is not installed as one")
	}
	runs := 20
	if pace.Long() {
		runs = 200
	}
	network := "test-" + strings.ToLower(rand.Text())
	dir := t.TempDir()
	whole := killedStart(t, filepath.Join(dir, "whole"), network, when{})
	if whole.printed == "" {
		t.Fatal("the command does not start")
	}
	between, absent, after := 0, 0, 0
	for i := range runs {
		home := filepath.Join(dir, strconv.Itoa(i))
		w := when{"touch", whole.toPrint * 9 / 10} // half of them between the first file operation and the print
		switch i % 4 {
		case 1:
			w = when{"exec", whole.toTouch + whole.toPrint}
		case 3:
			w = when{"print", 100 * time.Millisecond}
		}
		seen := killedStart(t, home, network, w)
		switch {
		case seen.printed != "":
			after++
			whole.toPrint = (3*whole.toPrint + seen.toPrint) / 4 // the machine's other work changes it
		case seen.touched:
			between++
		}
		if !checkKilled(t, home, seen.printed) {
			absent++
		}
		if t.Failed() {
			t.Fatalf("run %d, killed %s after %s", i, w.within, w.after)
		}
	}
	t.Logf("%d kills: %d between the first file operation and the print, %d after it; %d left no identity", runs, between, after, absent)
	if runs >= 200 && between < 50 {
		t.Errorf("%d kills between the first file operation and the print, want 50", between)
	}
}

// checkKilled looks at what a kill left, and tells whether there is an identity. The next start must have the same one.
func checkKilled(t *testing.T, home, printed string) (there bool) {
	t.Helper()
	first, err := identity(home)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if printed != "" {
			t.Errorf("%s was printed, and there is no identity", printed)
			return false
		}
	case err != nil:
		t.Errorf("after the kill: %v", err)
		return false
	case printed != "" && first != printed:
		t.Errorf("%s was printed, and now it is %s", printed, first)
		return false
	}
	h, err := host.OpenHome(home)
	if err != nil {
		t.Errorf("the next start: %v", err)
		return false
	}
	defer func() { _ = h.Close() }()
	if _, err := h.Identity(); err != nil {
		t.Errorf("the next start: %v", err)
		return false
	}
	if second, err := identity(home); err != nil || first != "" && second != first {
		t.Errorf("%s became %s, %v", first, second, err)
	}
	return first != ""
}

// identity returns the ID in a home.
func identity(home string) (string, error) {
	key, err := host.ReadIdentity(home)
	if err != nil {
		return "", err
	}
	id, err := peer.IDFromPrivateKey(key)
	return id.String(), err
}
