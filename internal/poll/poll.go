// Package poll waits, in tests, for what no event tells of. A test of logic needs it in virtual time only.
package poll

import (
	"testing"
	"time"
)

// pause lies between two looks.
const pause = 20 * time.Millisecond

// Until looks until missing returns "", and returns how long that took. When it took longer than limit it fails the test
// with what missing returned last. It looks at least once.
func Until(tb testing.TB, limit time.Duration, missing func() string) time.Duration {
	tb.Helper()
	for begin := time.Now(); ; <-time.After(pause) {
		what, took := missing(), time.Since(begin)
		switch {
		case what == "":
			return took
		case took > limit:
			tb.Fatalf("after %v: %s", limit, what)
		}
	}
}

// Not makes of a condition what [Until] takes: the text what is missing until is returns true.
func Not(what string, is func() bool) func() string {
	return func() string {
		if is() {
			return ""
		}
		return what
	}
}
