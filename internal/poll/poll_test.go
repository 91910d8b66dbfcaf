package poll_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/internal/virtual"
)

// failing is a test that notes how it failed.
type failing struct {
	testing.TB
	text string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.text = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestUntil(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		begin := time.Now()
		after := func(d time.Duration) func() string {
			return poll.Not("too early", func() bool { return time.Since(begin) >= d })
		}
		if took := poll.Until(t, 0, after(0)); took != 0 {
			t.Errorf("it took %v, want no time", took)
		}
		if took := poll.Until(t, time.Minute, after(time.Second)); took < time.Second || took > 1100*time.Millisecond {
			t.Errorf("it took %v, want 1 s", took)
		}
		f := new(failing)
		done := make(chan struct{})
		go func() {
			defer close(done)
			poll.Until(f, time.Minute, after(time.Hour))
		}()
		<-done
		if want := "after 1m0s: too early"; f.text != want || time.Since(begin) > 2*time.Minute {
			t.Errorf("it failed with %q after %v, want %q", f.text, time.Since(begin), want)
		}
	})
}
