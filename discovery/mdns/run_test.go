package mdns

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/internal/virtual"
)

func TestRun_FindsAtOnce(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		lan := &segment{}
		a, b := newSim(t, lan, 1), newSim(t, lan, 2)
		a.start(t, "")
		pass(time.Hour)
		begin := time.Now()
		b.start(t, "default")
		pass(100 * time.Millisecond)
		for name, f := range map[string][]finding{"a": a.finds(b.host.id, begin), "b": b.finds(a.host.id, begin)} {
			if len(f) != 1 {
				t.Fatalf("%s found the other %d times; want once", name, len(f))
			}
		}
		want := []string{"/ip4/192.168.7.2/tcp/9388", "/ip4/192.168.7.2/udp/9388/quic-v1"}
		var got []string
		for _, x := range a.finds(b.host.id, begin)[0].info.Addrs {
			got = append(got, x.String())
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("found at %v; want %v", got, want)
		}
		if st := a.source.State(); st.Reason != Found || st.Peers != 1 {
			t.Errorf("state %+v; want one peer found", st)
		}
		a.stop(t)
		pass(2 * tidyGap)
		if st := b.source.State(); st.Peers != 0 {
			t.Errorf("%d peers after the goodbye; want none", st.Peers)
		}
		b.stop(t)
		if st := b.source.State(); st.Reason != Stopped {
			t.Errorf("state %q after the end; want stopped", st.Reason)
		}
	})
}

func TestRun_ThirtyOneHosts(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		lan := &segment{}
		var all []*sim
		for i := range 31 {
			all = append(all, newSim(t, lan, i+1))
		}
		for _, n := range all {
			n.start(t, "office")
		}
		pass(2 * time.Second)
		for i, n := range all {
			seen := map[peer.ID]bool{}
			for _, f := range n.found {
				seen[f.info.ID] = true
			}
			if len(seen) != 30 {
				t.Errorf("node %d found %d others within 2 s; want 30", i, len(seen))
			}
		}
	})
}

func TestRun_OtherNetwork(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		lan := &segment{}
		a, b := newSim(t, lan, 1), newSim(t, lan, 2)
		a.start(t, "one")
		b.start(t, "two")
		pass(time.Minute)
		if a.total()+b.total() > 0 {
			t.Error("nodes of different networks found each other")
		}
	})
}

func TestRun_AddressChanges(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		lan := &segment{}
		a, b := newSim(t, lan, 1), newSim(t, lan, 2)
		a.start(t, "")
		b.start(t, "")
		pass(time.Minute)
		a.host.connect(b.host.id, true) // so that b was not found again less than changeGap ago
		pass(time.Hour)
		changed := time.Now()
		b.set(iface(1, "lo", "127.0.0.1/8"), iface(2, "eth0", "192.168.7.99/24"))
		pass(200 * time.Millisecond)
		f := a.finds(b.host.id, changed)
		if len(f) != 1 || len(f[0].info.Addrs) != 2 || !strings.Contains(f[0].info.Addrs[0].String(), "192.168.7.99") {
			t.Fatalf("after the change of address: %v", f)
		}
	})
}

func TestRun_InterfaceAddedLater(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		lan, other := &segment{}, &segment{}
		a, b := newSim(t, lan, 1), newSim(t, &segment{}, 2)
		b.segments["wlan0"] = lan
		a.segments["wlan0"] = other
		a.start(t, "")
		b.start(t, "")
		pass(time.Minute)
		if a.total() != 0 {
			t.Fatal("found without a common link")
		}
		added := time.Now()
		b.set(slices.Concat(b.ifaces, nil)[0], b.ifaces[1], iface(3, "wlan0", "192.168.7.2/24"))
		pass(200 * time.Millisecond)
		if len(a.finds(b.host.id, added)) == 0 || len(b.finds(a.host.id, added)) == 0 {
			t.Error("not found over the new interface")
		}
		// When it goes, what was heard there goes with it.
		b.set(b.ifaces[:2]...)
		pass(time.Second)
		if st := b.source.State(); st.Peers != 0 {
			t.Errorf("%d peers on an interface that is gone", st.Peers)
		}
	})
}

// TestRun_BackAfterACut is the far side of a switch that was cut off: no carrier is lost, only the connections.
func TestRun_BackAfterACut(t *testing.T) {
	for _, cut := range []time.Duration{time.Minute, 5 * time.Minute} {
		limit := 2500 * time.Millisecond
		if cut > lostFor {
			limit = 11 * time.Second
		}
		t.Run(cut.String(), func(t *testing.T) {
			virtual.Test(t, func(t *testing.T) {
				lan := &segment{}
				a, b := newSim(t, lan, 1), newSim(t, lan, 2)
				a.start(t, "")
				b.start(t, "")
				pass(time.Hour)
				a.host.connect(b.host.id, true)
				b.host.connect(a.host.id, true)
				pass(time.Hour)
				b.setCut(true)
				pass(cut / 2)
				a.host.connect(b.host.id, false)
				b.host.connect(a.host.id, false)
				pass(cut / 2)
				back := time.Now()
				b.setCut(false)
				pass(limit)
				for name, f := range map[string][]finding{"a": a.finds(b.host.id, back), "b": b.finds(a.host.id, back)} {
					if len(f) == 0 {
						t.Errorf("%s has not found the other within %v", name, limit)
					} else {
						t.Logf("%s: %v after the return", name, f[0].at.Sub(back))
					}
				}
			})
		})
	}
}

func TestRun_Refresh(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		lan := &segment{}
		a, b := newSim(t, lan, 1), newSim(t, lan, 2)
		a.start(t, "")
		b.start(t, "")
		pass(time.Hour)
		before, _ := a.sent()
		for range 1000 {
			a.source.Refresh()
		}
		pass(time.Second)
		after, _ := a.sent()
		if n := after - before; n < 1 || n > 2*4 { // on lo and eth0: two for the calls, and two that were due anyhow
			t.Errorf("%d packets after 1000 calls of Refresh; want a few", n)
		}
	})
}

func TestRun_RestartWithTheSameIdentity(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		lan := &segment{}
		a, b := newSim(t, lan, 1), newSim(t, lan, 2)
		a.start(t, "")
		b.start(t, "")
		pass(time.Minute)
		b.stop(t)
		pass(time.Second)
		restart := time.Now()
		b.start(t, "")
		pass(100 * time.Millisecond)
		if len(a.finds(b.host.id, restart)) != 1 || len(b.finds(a.host.id, restart)) != 1 {
			t.Error("not found again after the restart")
		}
		if len(b.finds(b.host.id, restart)) != 0 {
			t.Error("took itself for a clone")
		}
	})
}

func TestRun_Clone(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		lan := &segment{}
		a, b := newSim(t, lan, 1), newSim(t, lan, 2)
		b.host.id = a.host.id
		begin := time.Now()
		a.start(t, "")
		b.start(t, "")
		pass(time.Second)
		if len(a.finds(a.host.id, begin)) == 0 || len(b.finds(a.host.id, begin)) == 0 {
			t.Error("the clone was not passed on")
		}
	})
}

func TestRun_LoopbackOnlyStaysOnTheMachine(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		lan := &segment{}
		a, b := newSim(t, lan, 1), newSim(t, lan, 2)
		b.segments["lo"] = a.segments["lo"] // one machine
		a.listen("/ip4/127.0.0.1/tcp/9388")
		b.listen("/ip4/0.0.0.0/tcp/9389")
		begin := time.Now()
		a.start(t, "")
		pass(time.Minute)
		if lan.packets > 0 {
			t.Errorf("%d packets of a node that listens on loopback only", lan.packets)
		}
		b.start(t, "")
		pass(time.Minute)
		if len(a.finds(b.host.id, begin)) == 0 || len(b.finds(a.host.id, begin)) == 0 {
			t.Error("not found on the same machine")
		}
		for _, f := range slices.Concat(a.finds(b.host.id, begin), b.finds(a.host.id, begin)) {
			for _, x := range f.info.Addrs {
				if !strings.HasPrefix(x.String(), "/ip4/127.") {
					t.Errorf("%v was announced on loopback", x)
				}
			}
		}
	})
}

// TestRun_Chatter measures what a node sends at rest.
func TestRun_Chatter(t *testing.T) {
	for _, count := range []int{1, 2, 8} {
		virtual.Test(t, func(t *testing.T) {
			lan := &segment{}
			for i := range count {
				newSim(t, lan, i+1).start(t, "")
			}
			pass(10 * time.Minute)
			lan.mu.Lock()
			before := lan.bytes
			lan.mu.Unlock()
			pass(30 * time.Minute)
			lan.mu.Lock()
			day := (lan.bytes - before) * 48 / count
			lan.mu.Unlock()
			t.Logf("%d nodes: %d kB a day per node and family of addresses", count, day/1000)
			if day > 1_000_000 {
				t.Errorf("%d nodes: %d bytes a day per node; want at most 1 MB", count, day)
			}
		})
	}
}

func TestRun_SecondAtOnce(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		a := newSim(t, &segment{}, 1)
		a.start(t, "")
		pass(time.Second)
		if err := a.source.Run(t.Context(), a.host, func(peer.AddrInfo) {}); !errors.Is(err, errRunning) {
			t.Errorf("a second Run: %v; want %v", err, errRunning)
		}
	})
}
