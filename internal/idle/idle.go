// Package idle tells which connections nobody would miss, by what libp2p shows of them.
package idle

import (
	"strings"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
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
	if own, ok := strings.CutPrefix(id, "/p2p/"); ok {
		_, id, _ = strings.Cut(own, "/") // behind the network's name
		return strings.HasPrefix(id, "meshsub/") || strings.HasPrefix(id, "kad/")
	}
	for _, prefix := range []string{"/ipfs/id/", "/ipfs/ping/", "/ipfs/kad/", "/meshsub/", "/floodsub/"} {
		if strings.HasPrefix(id, prefix) {
			return true
		}
	}
	return false
}

// CarriedFor tells whether this host, as a relay, holds a reservation of a peer or carries a connection of its. A reservation
// ends with the peer's connection, and no stream shows it; libp2p marks those peers in the connection manager.
func CarriedFor(m connmgr.ConnManager, p peer.ID) bool {
	info := m.GetTagInfo(p)
	return info != nil && (info.Tags["relay-reservation"] > 0 || info.Tags["relay-v2-hop"] > 0)
}
