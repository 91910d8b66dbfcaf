package host_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashHome); dir != "" {
		os.Exit(startAndWait(dir))
	}
	goleak.VerifyTestMain(m)
}
