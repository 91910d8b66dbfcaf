package host_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/lynn9388/p2p/internal/pace"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashHome); dir != "" {
		os.Exit(startAndWait(dir))
	}
	if os.Getenv(mapsPorts) != "" {
		os.Exit(mapPorts())
	}
	pace.Waiting(4) // for what does not answer
	goleak.VerifyTestMain(m)
}
