package p2p_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/lynn9388/p2p/internal/pace"
)

func TestMain(m *testing.M) {
	if os.Getenv(benchServerEnv) != "" {
		if err := runBenchServer(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	pace.Waiting(pace.Of(4, 6)) // for timeouts of the other side
	goleak.VerifyTestMain(m)
}
