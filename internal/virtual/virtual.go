// Package virtual runs tests in virtual time.
package virtual

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// Test runs f as [synctest.Test] does.
//
// Under the race detector it lets Go code run on one processor meanwhile: when two threads run timers of one bubble
// at once, they share one state of the detector, which ends the process (golang.org/issue/78156). Races are found all
// the same, by what happens before what.
func Test(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if raceEnabled {
		processors.take()
		defer processors.giveBack()
	}
	synctest.Test(t, f)
}

// processors counts the tests that hold the process at one processor.
var processors alone //nolint:gochecknoglobals // GOMAXPROCS is the process's

type alone struct {
	mu     sync.Mutex
	users  int
	before int
}

func (a *alone) take() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.users++; a.users == 1 {
		a.before = runtime.GOMAXPROCS(1)
	}
}

func (a *alone) giveBack() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.users--; a.users == 0 {
		runtime.GOMAXPROCS(a.before)
	}
}
