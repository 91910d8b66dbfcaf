package idle

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

type conn struct {
	network.Conn
	protocols []protocol.ID
}

type stream struct {
	network.Stream
	protocol protocol.ID
}

func (s stream) Protocol() protocol.ID { return s.protocol }

func (c conn) GetStreams() (out []network.Stream) {
	for _, id := range c.protocols {
		out = append(out, stream{protocol: id})
	}
	return out
}

func TestConn(t *testing.T) {
	passing := []protocol.ID{"/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "/p2p/n/kad/1.0.0", "/p2p/n/meshsub/1.2.0"}
	if !Conn(conn{}) || !Conn(conn{protocols: passing}) {
		t.Error("a connection that nobody would miss is not idle")
	}
	for _, id := range []protocol.ID{"", "/p2p/n/grpc/1.0.0", "/p2p/kad/grpc/1.0.0", "/libp2p/circuit/relay/0.2.0/hop"} {
		if Conn(conn{protocols: append(passing, id)}) {
			t.Errorf("a connection with a stream of %q is idle", id)
		}
	}
}
