//go:build linux

package suite

import (
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/natlab"
)

// TestMoving has a pair under a steady load go from the relay to a direct connection, and back when that one dies.
func TestMoving(t *testing.T) {
	w := newWorld(t, natlab.Config{Delay: hop})
	relay := w.relay()
	leftSite, rightSite := w.Router(natlab.PortRestricted), w.Router(natlab.PortRestricted)
	left, right := w.wan(leftSite.Host(), relay), w.wan(rightSite.Host(), relay)
	leftSite.Sever(rightSite)
	right.start()
	left.start()
	if c := left.call(right, 0); c.Path != "relay" {
		t.Errorf("the first call went %s; want it over the relay", c.Path)
	}
	order[struct{}](left, "Load", Load{Target: right.id.String(), Calls: true, Stream: true, Resume: true})
	time.Sleep(3 * time.Second)
	leftSite.Join(rightSite)
	begin := time.Now()
	_, ok := left.direct(right, time.Minute)
	if !ok {
		t.Fatalf("no direct connection: %+v", order[Standing](left, "Status", struct{}{}))
	}
	t.Logf("direct %v after the way was free", time.Since(begin).Round(time.Millisecond))
	time.Sleep(40 * time.Second) // longer than a stream on the relay is left in peace
	if c := left.call(right, 0); c.Path != "direct" {
		t.Errorf("a call went %s; want it direct", c.Path)
	}
	report := order[Report](left, "Unload", struct{}{})
	t.Logf("to the direct connection: %+v", report)
	if report.Failed > 0 || report.Gap > promised(500*time.Millisecond) {
		t.Errorf("%d calls failed, the longest gap is %v: %q", report.Failed, report.Gap, report.Errors)
	}
	if report.StreamErr != "" || report.Lost > 0 || report.Repeated > 0 || report.StreamGap > promised(500*time.Millisecond) {
		t.Errorf("the stream: %+v", report)
	}

	order[struct{}](left, "Load", Load{Target: right.id.String(), Calls: true, Stream: true, Resume: true})
	time.Sleep(2 * time.Second)
	leftSite.Sever(rightSite)
	time.Sleep(15 * time.Second)
	if c := left.call(right, 0); c.Path != "relay" {
		t.Errorf("a call went %s; want it over the relay", c.Path)
	}
	report = order[Report](left, "Unload", struct{}{})
	t.Logf("back to the relay: %+v", report)
	if report.Failed > 0 || report.Gap > promised(5*time.Second) {
		t.Errorf("%d calls failed, the longest gap is %v: %q", report.Failed, report.Gap, report.Errors)
	}
	if report.StreamErr != "" || report.Lost > 0 || report.Repeated > 0 || report.StreamGap > promised(5*time.Second) {
		t.Errorf("the stream: %+v", report)
	}
}
