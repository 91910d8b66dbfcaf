// Package broadcast lets a node say something to all others, and ask all of them something.
//
// A [Topic] is a name and a message type. What one node publishes on it, every node that subscribed to it hears, once:
//
//	topic, err := broadcast.Join[*chatpb.Line](node.Broadcast(), "chat")
//	sub, err := topic.Subscribe(0)
//	err = topic.Publish(ctx, &chatpb.Line{Text: "hello"})
//	for m := range sub.Messages(ctx) {
//		fmt.Println(m.From, m.Body.GetText())
//	}
//
// [Query] publishes a question; those who called [Handle] send their answers directly to the asker.
//
// Messages travel by GossipSub 1.2 (https://github.com/libp2p/specs/tree/master/pubsub/gossipsub) between nodes of one
// network name. Each message is signed by its author. A node hears and passes on only what holds: the signature, the
// author's right to publish, the type, the size, the author's rate, and that it is neither old nor a repetition. Who
// sends many that do not hold is cut off.
//
// A topic reaches as far as those who listen on it, by [Topic.Subscribe] or [Handle], are connected among themselves: a
// node passes on only what it listens to, and no listeners are looked for beyond the node's neighbors. Where many nodes
// listen, that is everybody. Two listeners whose only connection is through a node that does not listen do not hear each
// other; a node in the middle that is to pass a topic on subscribes to it.
//
// A node that has joined no topic takes no part, at no cost. When it joins its first one it asks those it is connected to,
// and they answer, however many begin at once.
//
// Messages may be heard in another order than they were published in, also those of one author: they come on several
// ways and are verified in parallel. Whoever needs an order puts a number into the message.
//
// Nothing is stored: who subscribes later, or is cut off for longer than a few seconds, does not hear what was said
// before; and what is on its way over a connection that ends just then, also one over a relay that gives way to a direct
// one, comes only if there is another way. A node hears nothing that was published before it joined the topic, so that
// nobody can repeat to it what it has heard before a restart. For that, the clocks of the nodes must agree to [MaxAge].
package broadcast

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/lynn9388/p2p/internal/safetext"
)

// The limits of the protocol. They are the same on every node of a network, since each node holds the others to them.
const (
	// MaxMessage is the size, in bytes, of the largest message or answer, with the name of its type.
	MaxMessage = 256 << 10
	// MaxAge is how long a message may be under way, and how far two clocks may be apart.
	MaxAge = 2 * time.Minute
	// MaxTopic is the length of the longest topic name.
	MaxTopic = 64
	// Rate is how much a node may publish on one topic for long, in units a second: a message costs one unit and another
	// for each 4 KiB.
	Rate = 128
	// Burst is how many units may be published at once.
	Burst = 256
	// MaxAnswerTime bounds how long the handler of a question may take, whatever the asker says.
	MaxAnswerTime = time.Minute
)

var (
	// ErrClosed is returned by the methods of a closed [Bus] or [Topic]. It matches [net.ErrClosed].
	ErrClosed = fmt.Errorf("broadcast: closed: %w", net.ErrClosed)
	// ErrNoPeers means that no neighbor listens on the topic, so that a message would have reached nobody.
	ErrNoPeers = errors.New("broadcast: no connected node listens on the topic")
	// ErrTooLarge means that a message is larger than [MaxMessage].
	ErrTooLarge = errors.New("broadcast: message too large")
)

// MeshProtocol returns the ID of the GossipSub protocol of a network.
func MeshProtocol(network string) protocol.ID {
	return protocol.ID("/p2p/" + network + "/meshsub/1.2.0")
}

// AnswerProtocol returns the ID of the protocol that carries the answers to questions: a stream of an answer's own, on
// which the one who answers writes the 16 bytes of the question and a Reply.
func AnswerProtocol(network string) protocol.ID {
	return protocol.ID("/p2p/" + network + "/answer/1.0.0")
}

// CheckTopic reports what is wrong with the name of a topic: 1 to [MaxTopic] of the characters a-z, A-Z, 0-9, '.', '_',
// '-' and '/'.
func CheckTopic(name string) error {
	if name == "" || len(name) > MaxTopic {
		return fmt.Errorf("broadcast: topic %q: want 1 to %d bytes", safetext.Clean(name), MaxTopic)
	}
	for _, r := range name {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '_', r == '-', r == '/':
		default:
			return fmt.Errorf("broadcast: topic %q: only a-z, A-Z, 0-9, '.', '_', '-' and '/' are allowed", safetext.Clean(name))
		}
	}
	return nil
}

// wireTopic is the topic as GossipSub knows it. The network's name is in it, and so in the signature.
func wireTopic(network, name string) string { return "/p2p/" + network + "/topic/" + name }

// cost is what a message of a size takes from a rate.
func cost(size int) int { return 1 + size/4096 }
