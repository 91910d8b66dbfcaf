package p2p

import (
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/protocols/broadcast"
)

// Broadcast returns the node's part in the broadcasts of its network: join a topic on it with [broadcast.Join]. It may
// be asked for at any time and is always the same; joining before the start fails with [ErrNotStarted], after the end
// with an error that is [net.ErrClosed]. A node that joins no topic does nothing for it, and passes nothing on. It ends
// with the node, after the calls in flight.
//
// Who may call may publish, and is told what is published: those on the allow list and, with [WithAuthorizer], those
// whom the authorizer lets call the method "/p2p.broadcast.v1.Topic/<name of the topic>". It is asked with the peer's ID
// alone, since a message may have come through others, and must not block.
func (n *Node) Broadcast() *broadcast.Bus { return n.bus }

func newBus(n *Node, c *config) *broadcast.Bus {
	return broadcast.New(broadcast.Config{
		Host: func() (corehost.Host, error) {
			r, err := n.live()
			if err != nil {
				return nil, err
			}
			return r.host, nil
		},
		Network: c.network,
		Allow:   n.mayPublish,
		Dial:    n.mayAnswer,
		Wait:    c.discoveryWait,
		Logger:  c.logger,
	})
}

// topicMethod is what an authorizer is asked about those who publish.
const topicMethod = "/p2p.broadcast.v1.Topic/"

func (n *Node) mayPublish(p peer.ID, topic string) bool {
	r, err := n.live()
	return err == nil && (p == r.host.ID() || n.access.mayCall(p, topicMethod+topic))
}

// mayAnswer tells whether an asker may be dialed to bring it an answer, and at which of the addresses that came through via.
func (n *Node) mayAnswer(via peer.ID, asker peer.AddrInfo) (at []ma.Multiaddr, ok bool) {
	r, err := n.live()
	if err != nil || r.keeper.Parted(asker.ID) {
		return nil, false
	}
	return r.keeper.From("broadcast", via).Accepted(asker.ID, asker.Addrs), true
}
