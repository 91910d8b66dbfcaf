package dht

import (
	"testing"
	"time"
)

func TestDHT_FindsAcrossALine(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		nodes := b.line(8)
		first, last := nodes[0], nodes[len(nodes)-1]
		last.dht.Announce([]string{"a.Service"})
		took := b.within(5*time.Second, func() string {
			if info, ok := b.find(first, "a.Service")[last.host.ID()]; !ok || len(info.Addrs) == 0 {
				return "the first does not find the last"
			}
			return ""
		})
		t.Logf("found after %v", took)
		if got := b.find(first, "another.Service"); len(got) != 0 {
			t.Errorf("found %v for a service that nobody offers", got)
		}
	})
}
