package grpcstream

import (
	"fmt"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/virtual"
)

// A relay that does not have a peer may have it a moment later: a call waits for that as for a peer that is not known.
func TestHub_WaitsForThePeerOfARelay(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h, w := newFakeHub()
		defer h.close()
		away := fmt.Errorf("all dials failed: %w", errNoReservation)
		c, start := newCall(selector{peer: "q"}), time.Now()
		for range 3 {
			if _, v := h.pick(c, who1); v != held || len(w.dialing) != 1 {
				t.Fatalf("after %v: verdict %d, %d dials", time.Since(start), v, len(w.dialing))
			}
			w.down(0, away)
			if _, v := h.pick(c, who1); v != held {
				t.Fatalf("after %v: verdict %d", time.Since(start), v)
			}
			time.Sleep(time.Second)
		}
		h.pick(c, who1)
		w.up(0)
		if l, v := h.pick(c, who1); v != picked || l.peer.id != "q" {
			t.Errorf("verdict %d once the peer is there", v)
		}

		c, start = newCall(selector{peer: "r"}), time.Now()
		for {
			_, v := h.pick(c, who1)
			for len(w.dialing) > 0 {
				w.down(0, away)
			}
			if v == gaveUp {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if d := time.Since(start).Round(time.Second); d != 5*time.Second {
			t.Errorf("gave up after %v", d)
		}
	})
}
