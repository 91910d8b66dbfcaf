package grpcstream

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	circuitpb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/virtual"
)

// A relay that does not have a peer may have it a moment later: a call waits for that as for a peer that is not known.
func TestHub_WaitsForThePeerOfARelay(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h, w := newFakeHub()
		defer h.close()
		away := fmt.Errorf("all dials failed: %w", errAwayFromRelay)
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

func TestRelay_AnswersThatCallsWaitOut(t *testing.T) {
	const relay, id = "12D3KooWKdw5bCAeE6WcvdcWddRgrqEhghjuoyigFm8xg8ni8M5z", peer.ID("q")
	for answer, want := range map[circuitpb.Status]bool{
		circuitpb.Status_NO_RESERVATION: true, circuitpb.Status_CONNECTION_FAILED: true,
		circuitpb.Status_PERMISSION_DENIED: false, circuitpb.Status_RESOURCE_LIMIT_EXCEEDED: false,
	} {
		err := asError(id, &swarm.DialError{Peer: id, DialErrors: []swarm.TransportError{{
			Address: ma.StringCast("/p2p/" + relay + "/p2p-circuit"),
			Cause:   fmt.Errorf("error opening relay circuit: %s (%d)", answer, answer),
		}}}, "n")
		if got := errors.Is(err, errAwayFromRelay); got != want || !strings.Contains(err.Error(), relay) {
			t.Errorf("%s is waited out: %v: %v", answer, got, err)
		}
	}
}

// A node changes one connection to a relay for another as it learns more of its addresses: what is asked for over the one
// that ends is asked for again.
func TestRelay_ConnectionEndsUnderADial(t *testing.T) {
	err := asError("q", &swarm.DialError{Peer: "q", DialErrors: []swarm.TransportError{{
		Address: ma.StringCast("/p2p/12D3KooWKdw5bCAeE6WcvdcWddRgrqEhghjuoyigFm8xg8ni8M5z/p2p-circuit"),
		Cause:   fmt.Errorf("stream-7: %w", network.ErrResourceScopeClosed),
	}}}, "n")
	var p hubPeer
	if p.fails(err, time.Now()); !p.failure.soft {
		t.Errorf("it fails calls: %v", err)
	}
}
