package broadcast

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// GossipSub's writer may tell that an RPC was sent before its loop tells that it was queued.
func TestFlow_DoesNotDriftWhenSentIsToldBeforeQueued(t *testing.T) {
	f, p := newFlow(), peer.ID("p")
	f.queued(p)
	for range 2 * congested {
		f.sent(p)
		f.queued(p)
	}
	if full, _ := f.full([]peer.ID{p}, time.Now()); full {
		t.Error("a neighbor to whom one RPC is to be sent is congested")
	}
	for range congested {
		f.queued(p)
	}
	if full, _ := f.full([]peer.ID{p}, time.Now()); !full {
		t.Error("a neighbor to whom many are to be sent is not congested")
	}
}
