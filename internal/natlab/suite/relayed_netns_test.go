//go:build linux

package suite

import (
	"os"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/natlab"
)

// streamEnv says how long the stream of TestSymmetricPair lives.
const streamEnv = "P2P_NAT_STREAM"

// TestSymmetricPair has two nodes that can never be directly connected: all goes over the relay.
func TestSymmetricPair(t *testing.T) {
	w := newWorld(t, natlab.Config{Delay: hop})
	relay := w.relay()
	left, right := w.wan(w.Router(natlab.Symmetric).Host(), relay), w.wan(w.Router(natlab.Symmetric).Host(), relay)
	left.setup.First = right.id.String()
	right.launch()
	left.launch()
	left.await()
	right.await()
	first := order[Called](left, "First", struct{}{})
	t.Logf("first answer %v after the start of the process, over %s %s; %d calls failed before", first.At.Round(time.Millisecond), first.Path, first.Relay, first.Failed)
	if first.Failed > 0 || first.At > promised(time.Second) || first.Path != "relay" || first.Relay != relay.id.String() {
		t.Errorf("the first call: %+v; want one over the relay within a second", first)
	}
	var took times
	for range runs(t) {
		took = append(took, left.call(right, 10<<20).Took)
	}
	t.Logf("10 MiB, %v", took)
	for _, d := range took {
		if d > promised(6*time.Second) {
			t.Errorf("10 MiB took %v", d)
		}
	}
	life := 20 * time.Second
	if text := os.Getenv(streamEnv); text != "" {
		var err error
		if life, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	order[struct{}](left, "Load", Load{Target: right.id.String(), Stream: true})
	time.Sleep(life)
	report := order[Report](left, "Unload", struct{}{})
	t.Logf("a stream of %v: %d messages, the longest gap %v", report.Lasted.Round(time.Second), report.Sent, report.StreamGap.Round(time.Millisecond))
	if report.StreamErr != "" || report.Lost > 0 || report.Repeated > 0 || report.Sent == 0 {
		t.Errorf("the stream: %+v", report)
	}
	if _, ok := left.direct(right, 0); ok {
		t.Error("a direct connection through two symmetric NATs")
	}
}
