package broadcast

import (
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// tracer is told by GossipSub what happens. It must not block.
type tracer struct {
	bus  *Bus
	mesh *mesh
}

// DeliverMessage hands a valid message to those who listen here.
func (t *tracer) DeliverMessage(m *pubsub.Message) {
	if h, ok := m.ValidatorData.(*heard); ok {
		h.room.deliver(h)
	}
}

// RejectMessage counts what is wrong against the neighbor that sent it.
func (t *tracer) RejectMessage(m *pubsub.Message, reason string) {
	if m.ReceivedFrom == t.mesh.host.ID() {
		return
	}
	switch reason {
	case pubsub.RejectInvalidSignature, pubsub.RejectMissingSignature, pubsub.RejectValidationFailed:
		t.mesh.gate.strike(m.ReceivedFrom, 1, reason)
	}
}

// SendRPC counts what waits for a peer.
func (t *tracer) SendRPC(_ *pubsub.RPC, p peer.ID) { t.mesh.flow.queued(p) }

// SendRPCCompleted counts what was sent to a peer.
func (t *tracer) SendRPCCompleted(_ *pubsub.RPC, p peer.ID, _ time.Duration) { t.mesh.flow.sent(p) }

// OnClosedOutboundStream forgets what waited for a peer.
func (t *tracer) OnClosedOutboundStream(p peer.ID) { t.mesh.flow.gone(p) }

// The rest of [pubsub.RawTracer] is of no use here.

// OnNewOutboundStream does nothing.
func (*tracer) OnNewOutboundStream(peer.ID, protocol.ID) {}

// Join does nothing.
func (*tracer) Join(string) {}

// Leave does nothing.
func (*tracer) Leave(string) {}

// Graft does nothing.
func (*tracer) Graft(peer.ID, string) {}

// Prune does nothing.
func (*tracer) Prune(peer.ID, string) {}

// ValidateMessage does nothing.
func (*tracer) ValidateMessage(*pubsub.Message) {}

// DuplicateMessage does nothing.
func (*tracer) DuplicateMessage(*pubsub.Message) {}

// ThrottlePeer does nothing.
func (*tracer) ThrottlePeer(peer.ID) {}

// RecvRPC does nothing.
func (*tracer) RecvRPC(*pubsub.RPC) {}

// DropRPC does nothing.
func (*tracer) DropRPC(*pubsub.RPC, peer.ID) {}

// UndeliverableMessage does nothing.
func (*tracer) UndeliverableMessage(*pubsub.Message) {}
