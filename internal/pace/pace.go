// Package pace says how much time tests take.
//
// "go test ./..." goes with every change. What would take more than some seconds in it has a short form there, of fewer
// nodes, rounds or kinds, or is skipped; its long form is run with P2P_LONG=1, which "make netns" sets for the tests on
// several hosts. A test that waits instead of computing calls t.Parallel, and its package [Waiting].
package pace

import (
	"flag"
	"fmt"
	"os"
	"runtime"
)

// Variable in the environment, not empty, asks for the long form.
const Variable = "P2P_LONG"

// Long tells whether the long form of the tests was asked for.
func Long() bool { return os.Getenv(Variable) != "" }

// Of is long when the long form was asked for, else short.
func Of[T any](long, short T) T {
	if Long() {
		return long
	}
	return short
}

// Waiting is for a TestMain, before its tests run. It lets n of those that called t.Parallel run at once, unless the
// command line asks for another number than the usual one, that of the processors.
func Waiting(n int) {
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel != nil && parallel.Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		_ = parallel.Value.Set(fmt.Sprint(n))
	}
}
