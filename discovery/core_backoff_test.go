package discovery

import (
	"errors"
	"testing"
	"time"
)

// waits returns how long the core waits after each of n failures of a peer, which fail makes.
func waits(o *one, n int, fail func()) []time.Duration {
	out := make([]time.Duration, n)
	for i := range out {
		fail()
		out[i] = o.peers["a"].next.Sub(o.now)
		o.now = o.peers["a"].next
	}
	return out
}

func TestCore_BackoffsGrowToTheirCeilings(t *testing.T) {
	in := errors.New("no answer")
	for name, tc := range map[string]struct {
		base, ceiling time.Duration
		fail          func(o *one)
	}{
		"candidate":  {candidateBase, candidateMax, func(o *one) { o.peers["a"].direct = false; o.dialed("a", in) }},
		"heard":      {candidateBase, candidateNear, func(o *one) { o.dialed("a", in) }},
		"heard once": {candidateBase, candidateMax, func(o *one) { o.peers["a"].addrs[0].seen = o.now.Add(-candidateHeard); o.dialed("a", in) }},
		"no program": {candidateBase, candidateMax, func(o *one) { o.dialed("a", &refusedError{"refused"}) }},
		"let go":     {fullBase, fullMax, func(o *one) { o.arrive("a", true); o.connDown("a", 0, closedFull) }},
		"refused":    {refusedBase, refusedMax, func(o *one) { o.arrive("a", true); o.connDown("a", 0, closedNotAllow) }},
		"lost":       {redialBase, redialNear, func(o *one) { o.peers["a"].lost = o.now; o.dialed("a", in) }},
		"just now": {redialBase, redialRelay, func(o *one) {
			o.peers["a"].lost = o.now
			o.peers["a"].addrs = []address{{Multiaddr: addrOf("/ip4/9.9.9.9/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit")}}
			o.dialed("a", in)
		}},
		"not there":  {redialBase, redialRefused, func(o *one) { o.peers["a"].lost = o.now; o.dialed("a", &refusedError{"refused"}) }},
		"long ago":   {redialBase, redialFar, func(o *one) { o.peers["a"].lost = o.now.Add(-23 * time.Hour); o.dialed("a", in) }},
		"named once": {redialBase, redialNear, func(o *one) { o.peers["a"].sticky = true; o.dialed("a", in) }},
	} {
		o := newOne(KeeperConfig{})
		o.lan("a")
		got := waits(o, 16, func() { tc.fail(o) })
		for i, d := range got {
			want := capped(tc.base, i, tc.ceiling)
			if d < want*3/4 || d > want*5/4 {
				t.Errorf("%s: wait %d is %v, want about %v", name, i, d, want)
			}
		}
	}
}
