package reach

import (
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// needlessAfter is how long a direct connection must last before the relayed ones beside it are closed.
const needlessAfter = 2 * time.Second

// letGo closes the relayed connections that a direct one has taken the place of, once nothing is on them: each takes a
// place at the relay.
func (j *job) letGo() {
	j.mu.Lock()
	var needless []network.Conn
	for _, t := range j.core.peers {
		if t.direct == 0 || time.Since(t.since) < needlessAfter || t.running {
			continue
		}
		for _, r := range t.relayed {
			if c := j.conns[r.conn]; c != nil {
				needless = append(needless, c)
			}
		}
	}
	j.mu.Unlock()
	for _, c := range needless {
		if quiet(c) {
			j.log.Debug("closing a relayed connection beside a direct one", "peer", c.RemotePeer(), "addr", c.RemoteMultiaddr())
			_ = c.Close()
		}
	}
}

// quiet tells whether nothing is on a connection that would be missed: streams of protocols that ask once, or that are
// opened anew on another connection by themselves, are not.
func quiet(c network.Conn) bool {
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
