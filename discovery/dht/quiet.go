package dht

import (
	"os"

	"github.com/ipfs/go-log/v2"
)

// quiet keeps the library's own records off the user's terminal, where they would go by themselves. Whoever asks for
// them by GOLOG_LOG_LEVEL gets them. The library knows one level for the process.
func quiet() {
	if os.Getenv("GOLOG_LOG_LEVEL") != "" {
		return
	}
	for _, name := range []string{
		"dht", "dht.pb", "dht/RtRefreshManager", "dht/RtDiversityFilter", "dht/netsize", "providers", "table", "diversityFilter",
	} {
		_ = log.SetLogLevel(name, "fatal") // nothing of it ends the process
	}
}
