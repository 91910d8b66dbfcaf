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
	if os.Getenv(mapsPorts) != "" {
		os.Exit(mapPorts())
	}
	goleak.VerifyTestMain(m)
}
