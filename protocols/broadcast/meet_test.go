package broadcast

import (
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// untold is a host of whose handlers identify tells nobody: what it says lags behind, and libp2p drops such news when
// there are many.
type untold struct{ corehost.Host }

func (u untold) SetStreamHandler(id protocol.ID, handle network.StreamHandler) {
	u.Mux().AddHandler(id, func(_ protocol.ID, rwc io.ReadWriteCloser) error {
		if s, ok := rwc.(network.Stream); ok {
			handle(s)
		}
		return nil
	})
}

func newUntold(t *testing.T, count int) *world {
	t.Helper()
	return newWorld(t, count, func(_ int, c *Config) {
		h, err := c.Host()
		must(t, err)
		c.Host = func() (corehost.Host, error) { return untold{h}, nil }
	})
}

// know fails the test unless each of two subscribers hears the other.
func know(t *testing.T, w *world, a, b *Subscription[text]) {
	t.Helper()
	for i, s := range []*Subscription[text]{a, b} {
		if got := s.topic.Peers(); !slices.Contains(got, w.hosts[1-i].ID()) {
			t.Errorf("node %d knows of %d", i, len(got))
		}
		must(t, s.topic.Publish(t.Context(), say("hello")))
		for _, hears := range []*Subscription[text]{a, b} {
			if m := next(t, hears); m.From != w.hosts[i].ID() {
				t.Errorf("heard %v", m)
			}
		}
	}
}

func TestMeet_WhoJoinedFirstLearnsOfTheOtherFromItsStream(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newUntold(t, 2)
		w.connect(0, 1)
		a := subscribe(t, join[text](t, w.buses[0], "news"), 0)
		time.Sleep(time.Hour)
		b := subscribe(t, join[text](t, w.buses[1], "news"), 0)
		time.Sleep(time.Second)
		know(t, w, a, b)
	})
}

func TestMeet_WhileBothJoin(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newUntold(t, 2)
		a := subscribe(t, join[text](t, w.buses[0], "news"), 0)
		b := subscribe(t, join[text](t, w.buses[1], "news"), 0)
		w.connect(0, 1)
		time.Sleep(time.Second)
		know(t, w, a, b)
	})
}

func TestMeet_ManyWhoJoinAtOnceLongAfterTheyWereConnected(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 40, nil)
		for i := range w.hosts[1:] {
			w.connect(0, i+1) // each has the one neighbor
		}
		time.Sleep(time.Minute)
		var subs []*Subscription[text]
		for _, b := range w.buses {
			subs = append(subs, subscribe(t, join[text](t, b, "news"), 0))
		}
		time.Sleep(2 * time.Second)
		for i, s := range subs {
			if got, want := len(s.topic.Peers()), len(w.hosts[i].Network().Peers()); got != want {
				t.Errorf("node %d knows of %d of its %d neighbors", i, got, want)
			}
			must(t, s.topic.Publish(t.Context(), say("hello")))
		}
		time.Sleep(5 * time.Second)
		for i, s := range subs {
			if got := len(heardBy(s)); got != len(subs) {
				t.Errorf("node %d heard %d of %d", i, got, len(subs))
			}
		}
	})
}

func TestMeet_WhoWasCutOffComesBackOnTheSameConnection(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w, a, s := pair(t, nil)
		mine := subscribe(t, a, 0)
		time.Sleep(time.Second)
		g := w.buses[1].mesh.gate
		g.strike(w.hosts[0].ID(), maxStrikes+1, "test")
		time.Sleep(askAgain * 3 / 2) // not when it is asked again, and a stream is just being refused
		synctest.Wait()
		if w.buses[0].mesh.gate.here(w.hosts[1].ID()) || g.here(w.hosts[0].ID()) {
			t.Error("it was not cut off")
		}
		time.Sleep(cutFor + time.Second)
		know(t, w, mine, s)
	})
}
