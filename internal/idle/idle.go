// Package idle tells which connections nobody would miss.
package idle

import (
	"strings"

	"github.com/libp2p/go-libp2p/core/network"
)

// Conn tells whether nothing is on a connection that would be missed: streams of protocols that ask once, or that are
// opened anew on another connection by themselves, are not.
func Conn(c network.Conn) bool {
	for _, s := range c.GetStreams() {
		if !passing(string(s.Protocol())) {
			return false
		}
	}
	return true
}

func passing(id string) bool {
	for _, part := range []string{"/ipfs/id/", "/ipfs/ping/", "/meshsub/", "/floodsub/", "/kad/"} {
		if strings.Contains(id, part) {
			return true
		}
	}
	return false
}
