package grpcstream

import (
	"sync/atomic"
	"time"
)

// A watchdog calls bite when something that began has not ended within a limit. Beginning and ending cost two atomic
// operations each: its timer is not reset for each of them but looks, when it fires, at what is under way.
type watchdog struct {
	limit time.Duration
	bite  func()
	base  time.Time
	timer *time.Timer
	since atomic.Int64 // nanoseconds from base to the beginning of what is under way; 0: nothing is
	armed atomic.Bool
}

func newWatchdog(limit time.Duration, bite func()) *watchdog {
	w := &watchdog{limit: limit, bite: bite, base: time.Now()}
	w.timer = time.AfterFunc(time.Hour, w.look)
	w.timer.Stop()
	return w
}

// begin starts the time. Only one thing may be under way.
func (w *watchdog) begin() {
	w.since.Store(int64(time.Since(w.base)) + 1)
	w.arm(w.limit)
}

// end says that what began has ended, or made progress.
func (w *watchdog) end() { w.since.Store(0) }

// stop ends the watch. A begin after it may fire once more.
func (w *watchdog) stop() {
	w.since.Store(0)
	w.timer.Stop()
}

func (w *watchdog) arm(d time.Duration) {
	if w.armed.CompareAndSwap(false, true) {
		w.timer.Reset(d)
	}
}

func (w *watchdog) look() {
	w.armed.Store(false)
	since := w.since.Load()
	if since == 0 {
		return
	}
	left := w.limit - (time.Since(w.base) - time.Duration(since-1))
	if left <= 0 {
		w.bite()
		return
	}
	w.arm(left)
}
