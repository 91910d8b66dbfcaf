package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/lynn9388/p2p/internal/pace"
)

// TestMain lets the test binary stand in for the command, and for a node with a service, in processes of their own.
func TestMain(m *testing.M) {
	testscript.Main(leakCheck{m}, map[string]func(){
		"p2p":    main,
		"shapes": shapes,
	})
}

// leakCheck looks for goroutines that are left after the tests.
type leakCheck struct{ m *testing.M }

// Run implements [testscript.TestingM].
func (l leakCheck) Run() int {
	pace.Waiting(pace.Of(2, 16)) // for processes and hosts of their own
	code := l.m.Run()
	if code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
