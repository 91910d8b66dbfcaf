package mdns

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func news(instance string, id peer.ID, at ...string) announced {
	return announced{instance: instance, info: peer.AddrInfo{ID: id, Addrs: addrs(at...)}}
}

func TestTable_PassesOnWhatIsNew(t *testing.T) {
	id := newID(t)
	tab, now := newTable(), time.Unix(1000, 0)
	hear := func(iface int, connected bool, at ...string) bool {
		t.Helper()
		_, ok := tab.hear(news("a", id, at...), iface, connected, now)
		return ok
	}
	const one, two = "/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1"
	for i, step := range []struct {
		after     time.Duration
		iface     int
		connected bool
		addr      string
		want      bool
	}{
		{0, 1, false, one, true},
		{0, 1, false, one, false},
		{time.Second, 1, true, one, false},
		{time.Minute, 1, true, one, false},
		{0, 1, true, two, true},
		{0, 1, true, two, false},
		{100 * time.Millisecond, 1, true, one, false}, // too soon, and news still the next time
		{changeGap, 1, true, one, true},
		{time.Minute, 1, false, one, true}, // not connected
		{repeatGap / 2, 1, false, one, false},
		{repeatGap, 2, false, one, true},
		{recordTTL * time.Second, 1, true, one, true}, // a long silence
	} {
		now = now.Add(step.after)
		if got := hear(step.iface, step.connected, step.addr); got != step.want {
			t.Errorf("step %d: passed on %v; want %v", i, got, step.want)
		}
	}
}

func TestTable_Lost(t *testing.T) {
	id := newID(t)
	tab, now := newTable(), time.Unix(1000, 0)
	a := news("a", id, "/ip4/10.0.0.1/tcp/1")
	tab.hear(a, 1, true, now)
	if tab.connection(newID(t), false, now) || tab.connection(id, true, now) {
		t.Error("lost somebody who is not")
	}
	if !slices.Equal(tab.known(1, time.Time{}, now), []string{"a"}) || tab.count(0) != 1 {
		t.Error("not known")
	}
	if !tab.connection(id, false, now) || !tab.lastLost().Equal(now) {
		t.Error("not lost")
	}
	if len(tab.known(1, time.Time{}, now)) > 0 || tab.count(0) != 0 {
		t.Error("a lost peer is among the known: it would not answer")
	}
	if _, ok := tab.hear(a, 1, false, now); !ok {
		t.Error("not passed on when heard again")
	}
	if !tab.lastLost().IsZero() {
		t.Error("still lost")
	}
	// Back as another instance, the lost one is no longer missed.
	tab.connection(id, true, now)
	tab.connection(id, false, now)
	tab.hear(news("b", id, "/ip4/10.0.0.1/tcp/1"), 1, false, now)
	if !tab.lastLost().IsZero() || len(tab.entries) != 1 {
		t.Error("the instance before is still missed")
	}
}

func TestTable_GoodbyeOnEachInterface(t *testing.T) {
	id := newID(t)
	tab, now := newTable(), time.Unix(1000, 0)
	tab.hear(news("a", id, "/ip4/10.0.0.1/tcp/1"), 1, true, now)
	info, ok := tab.hear(news("a", id, "/ip4/10.0.1.1/tcp/1"), 2, true, now.Add(time.Second))
	if !ok || len(info.Addrs) != 2 {
		t.Errorf("the addresses of both interfaces: %v, %v", info, ok)
	}
	tab.goodbye("unknown", 1)
	tab.goodbye("a", 1)
	if tab.count(1) != 0 || tab.count(2) != 1 {
		t.Error("a goodbye on one interface counts there")
	}
	tab.forget(2)
	if tab.count(0) != 0 {
		t.Error("still there")
	}
}

func TestTable_Full(t *testing.T) {
	id := newID(t)
	tab, now := newTable(), time.Unix(1000, 0)
	tab.hear(news("friend", id, "/ip4/10.0.0.1/tcp/1"), 1, true, now)
	for i := range 3 * maxEntries {
		now = now.Add(time.Second / passRate)
		tab.hear(news(fmt.Sprintf("x%d", i), id, "/ip4/10.0.0.1/tcp/1"), 1, false, now)
	}
	if len(tab.entries) != maxEntries {
		t.Errorf("%d entries; want %d", len(tab.entries), maxEntries)
	}
	if tab.entries["friend"] == nil {
		t.Error("a connected peer was pushed out")
	}
	now = now.Add(recordTTL * time.Second)
	tab.expire(now)
	if len(tab.entries) != 0 {
		t.Errorf("%d entries outlived their records", len(tab.entries))
	}
}

func TestTable_Rate(t *testing.T) {
	tab, now := newTable(), time.Unix(1000, 0)
	passed := 0
	id := newID(t)
	for i := range 1000 {
		if _, ok := tab.hear(news(fmt.Sprintf("x%d", i), id, "/ip4/10.0.0.1/tcp/1"), 1, false, now); ok {
			passed++
		}
	}
	if passed != passBurst {
		t.Errorf("%d passed on at once; want %d", passed, passBurst)
	}
	if tab.recovered(now) {
		t.Error("there is no room yet")
	}
	now = now.Add(10 * time.Second)
	if !tab.recovered(now) || tab.recovered(now) {
		t.Error("room again must be told once")
	}
	if _, ok := tab.hear(news("x999", id, "/ip4/10.0.0.1/tcp/1"), 1, false, now); !ok {
		t.Error("what was held back is no news any more")
	}
}
