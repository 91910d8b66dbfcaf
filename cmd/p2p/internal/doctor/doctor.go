// Package doctor examines a node and what is around it. Each check says whether all is well, why, and what to do if not;
// what cannot be known from here is said to be unknown, and not guessed.
package doctor

import (
	"fmt"
	"strings"
)

// Status is the outcome of a check.
type Status string

// The outcomes.
const (
	Pass    Status = "pass"
	Warn    Status = "warn"    // it works, and could be better
	Fail    Status = "fail"    // something does not work
	Unknown Status = "unknown" // it cannot be known from here, or does not apply
)

// Check is one thing that was looked at.
type Check struct {
	Name   string // "clock"
	Status Status
	Text   string // what was found, in one line
	Remedy string // what to do about it; empty when there is nothing to do
}

func pass(name, format string, args ...any) Check { return check(name, Pass, format, args) }

func warn(name, format string, args ...any) Check { return check(name, Warn, format, args) }

func fail(name, format string, args ...any) Check { return check(name, Fail, format, args) }

func unknown(name, format string, args ...any) Check { return check(name, Unknown, format, args) }

func check(name string, s Status, format string, args []any) Check {
	return Check{Name: name, Status: s, Text: strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")}
}

// todo adds what to do.
func (c Check) todo(format string, args ...any) Check {
	c.Remedy = fmt.Sprintf(format, args...)
	return c
}

// count says how many there are of something.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
