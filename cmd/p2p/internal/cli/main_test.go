package cli

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/lynn9388/p2p/internal/pace"
)

func TestMain(m *testing.M) {
	pace.Waiting(4) // for peers that do not answer
	goleak.VerifyTestMain(m)
}
