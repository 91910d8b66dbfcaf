package discovery

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A connection on which something comes in is not dead because its pings wait behind an upload, though not for ever: what
// comes in proves one direction only.
func TestKeeper_WhatComesInExcusesLatePings(t *testing.T) {
	for name, tc := range map[string]struct {
		heard func(start time.Time) time.Time
		want  time.Duration
	}{
		"nothing":        {func(start time.Time) time.Time { return start }, 2 * liveTimeout},
		"all the time":   {func(time.Time) time.Time { return time.Now() }, (maxExcused + 2) * liveTimeout},
		"for 5 s":        {func(start time.Time) time.Time { return minTime(time.Now(), start.Add(5*time.Second)) }, 6 * liveTimeout},
		"under way":      {func(start time.Time) time.Time { return minTime(time.Now(), start.Add(liveTimeout/3)) }, 2 * liveTimeout},
		"nobody says so": {nil, 2 * liveTimeout},
		"a tunnel's end": {func(start time.Time) time.Time {
			if time.Since(start) > 7*liveTimeout/4 {
				return time.Time{} // what the tunnel heard went with it
			}
			return start
		}, 2 * liveTimeout},
	} {
		inBubble(t, func(t *testing.T, b *bubble) {
			var start time.Time
			cfg := KeeperConfig{}
			if tc.heard != nil {
				cfg.Heard = func(network.Conn) time.Time { return tc.heard(start) }
			}
			ah, a := b.keeper(cfg)
			bh, _ := b.keeper(KeeperConfig{})
			must(t, ah.Connect(t.Context(), peer.AddrInfo{ID: bh.ID(), Addrs: simAddrs(bh)}))
			time.Sleep(100 * time.Millisecond)
			conn := ah.Network().ConnsToPeer(bh.ID())[0]
			b.net.Cut(ah, bh)
			start = time.Now()
			a.pingConn(t.Context(), look{conn, lookUsed}, liveTimeout)
			if took := time.Since(start); !conn.IsClosed() || took < tc.want || took > tc.want+time.Second {
				t.Errorf("%s: closed %v after %v, want %v", name, conn.IsClosed(), took, tc.want)
			}
		})
	}
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// A machine that wakes from sleep looks at once what is left of its connections.
func TestKeeper_SleepIsNoticed(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		ah, a := b.keeper(KeeperConfig{})
		bh, _ := b.keeper(KeeperConfig{})
		must(t, ah.Connect(t.Context(), peer.AddrInfo{ID: bh.ID(), Addrs: simAddrs(bh)}))
		b.within(time.Second, has1(a))
		var moved atomic.Int32
		a.onMove(func() { moved.Add(1) })
		begun := time.Now()
		var slept atomic.Int64 // by so much the wall's clock is ahead
		b.wg.Go(func() {
			a.watchClock(b.ctx, func() time.Time { return time.Now().Round(0).Add(time.Duration(slept.Load())) })
		})
		conn := ah.Network().ConnsToPeer(bh.ID())[0]
		time.Sleep(20*time.Second - time.Since(begun) + clockEvery/2)
		if moved.Load() > 0 {
			t.Error("without sleep")
		}
		b.net.Cut(ah, bh)
		slept.Store(int64(asleep / 2)) // the clock is set
		time.Sleep(clockEvery)
		if moved.Load() > 0 {
			t.Error("the clock was set")
		}
		slept.Add(int64(time.Hour))
		t.Logf("the dead connection is closed after %v", b.within(clockEvery+2*liveTimeout+100*time.Millisecond, func() string {
			if !conn.IsClosed() {
				return "it is open"
			}
			return ""
		}))
		if n := moved.Load(); n != 1 {
			t.Errorf("others were told %d times", n)
		}
	})
}
