package grpcstream

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/lynn9388/p2p/internal/pace"
)

func TestMain(m *testing.M) {
	pace.Waiting(4) // for peers that are not there
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/libp2p/go-libp2p/p2p/transport/quicreuse.(*reuse).gc"),
	)
}
