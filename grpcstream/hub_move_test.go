package grpcstream

import (
	"errors"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A mover is a hub whose calls to one peer go over a relay, and a clock.
type mover struct {
	t     *testing.T
	h     *hub
	w     *fakeWire
	clock time.Time
	relay *link
}

func newMover(t *testing.T) *mover {
	t.Helper()
	m := &mover{t: t, clock: time.Unix(1, 0)}
	m.h, m.w = newFakeHub()
	t.Cleanup(m.h.close)
	m.h.now = func() time.Time { return m.clock }
	m.h.timer = time.NewTimer(time.Hour) // which rings for nobody: the test does, by its own clock
	m.w.path = map[peer.ID]PathKind{"r": PathRelay}
	m.offer(true)
	connectAll(t, m.h, m.w, selector{})
	m.relay = m.pick()
	return m
}

// offer says whether the peer is connected over a relay only.
func (m *mover) offer(relayed bool) {
	m.h.offers("r", offer{node: true, relayed: relayed, services: []string{"x.A"}})
}

// pick makes a call, which must find a link that is up.
func (m *mover) pick() *link {
	m.t.Helper()
	l, v := m.h.pick(newCall(selector{}), who1)
	if v != picked || !m.w.ups[l] {
		m.t.Fatalf("verdict %d, link %+v", v, l)
	}
	l.done(true)
	return l
}

func (m *mover) sleep(d time.Duration) {
	m.clock = m.clock.Add(d)
	m.h.alarm()
}

// dialed returns the number of dials under way.
func (m *mover) dialed(want int) {
	m.t.Helper()
	if len(m.w.dialing) != want {
		m.t.Fatalf("%d dials, want %d", len(m.w.dialing), want)
	}
}

// direct completes the dial by a direct path, over a relay, or not.
func (m *mover) direct() *link {
	m.t.Helper()
	m.dialed(1)
	m.w.path = nil
	return m.w.up(0)
}

// A direct path may come up while the first tunnel is being made over a relay.
func TestHub_MovesFromALinkThatIsLate(t *testing.T) {
	m := newMover(t)
	m.h.down(m.relay, nil)
	m.h.pick(newCall(selector{}), who1)
	m.dialed(1)
	m.offer(false)
	late := m.w.up(0) // over the relay all the same
	if m.pick() != late {
		t.Error("calls do not go over the link that is there")
	}
	l := m.direct()
	m.sleep(moveSettle)
	if m.pick() != l || m.w.ups[late] {
		t.Error("the calls have not moved, or the relayed link was not given up")
	}
}

// When a relayed peer is connected directly, calls move to a new link without a gap, once that has settled, and what it
// said of its health holds.
func TestHub_MovesToTheDirectPath(t *testing.T) {
	m := newMover(t)
	m.w.quiet = true
	m.offer(false)
	m.dialed(1)
	if m.pick() != m.relay {
		t.Error("calls do not go on over the relay while the direct path is dialed")
	}
	l := m.direct()
	m.sleep(moveSettle - 1)
	if m.pick() != m.relay {
		t.Error("calls have moved to a path that has not settled")
	}
	m.sleep(1)
	if m.pick() != l || m.w.ups[m.relay] {
		t.Error("the calls have not moved, or the relayed link was not given up")
	}
	if i := m.h.snapshot("x.A", ""); i[0].Path != PathDirect || i[0].Health != HealthServing {
		t.Errorf("%+v", i[0])
	}
	m.dialed(0)
}

func TestHub_ADirectPathThatIsGoneAtOnceMovesNothing(t *testing.T) {
	m := newMover(t)
	pause := time.Duration(0)
	for range 5 {
		m.w.path = nil
		m.offer(false)
		m.sleep(pause)
		m.dialed(1)
		l := m.direct()
		m.sleep(moveSettle / 2)
		m.h.down(l, nil)
		m.offer(true)
		if m.pick() != m.relay {
			t.Fatal("the calls have left the relay")
		}
		pause = backoffMax * 6 / 5
	}
	if m.h.peers["r"].failure.err != nil {
		t.Error("a peer that calls reach over the relay is taken for failing")
	}
}

func TestHub_AMoveThatFailsIsTriedAgain(t *testing.T) {
	m := newMover(t)
	m.offer(false)
	for i := range 4 {
		switch m.dialed(1); i {
		case 0, 1:
			m.w.down(0, errors.New("refused"))
		case 2: // the direct path was gone by then
			m.w.path = map[peer.ID]PathKind{"r": PathRelay}
			if l := m.w.up(0); m.w.ups[l] {
				t.Error("a second link over the relay is kept")
			}
		case 3:
			m.direct()
			m.sleep(moveSettle)
			if m.pick() == m.relay {
				t.Error("the calls have not moved")
			}
			return
		}
		m.offer(false) // news of it do not shorten the pause
		m.dialed(0)
		if m.pick() != m.relay {
			t.Fatal("the calls have left the relay")
		}
		m.sleep(backoffBase * 6 / 5 << i)
	}
}

// Where the wire cannot even begin, calls stay where they are, and it is tried again.
func TestHub_AMoveThatCannotBegin(t *testing.T) {
	m := newMover(t)
	m.w.refuse = errors.New("closing")
	m.offer(false)
	m.dialed(0)
	m.w.refuse = nil
	m.sleep(backoffBase * 6 / 5)
	m.dialed(1)
	if m.pick() != m.relay || m.h.peers["r"].failure.err != nil {
		t.Error("the calls have left the relay")
	}
}

func TestHub_TheRelayIsGoneDuringTheMove(t *testing.T) {
	t.Run("while the direct path settles", func(t *testing.T) {
		m := newMover(t)
		m.offer(false)
		l := m.direct()
		m.h.down(m.relay, nil)
		if m.pick() != l {
			t.Error("calls wait, although there is a direct path")
		}
		m.sleep(time.Minute)
		if m.pick() != l {
			t.Error("the link was moved once more")
		}
	})
	t.Run("while the direct path is dialed", func(t *testing.T) {
		m := newMover(t)
		m.offer(false)
		m.h.down(m.relay, nil)
		if _, v := m.h.pick(newCall(selector{}), who1); v != held {
			t.Errorf("verdict %d", v)
		}
		if l := m.direct(); m.pick() != l {
			t.Error("calls wait for a path to settle that is the only one")
		}
	})
	t.Run("when the tunnel is dropped", func(t *testing.T) {
		m := newMover(t)
		m.offer(false)
		m.direct()
		m.h.part("r")
		if _, v := m.h.pick(newCall(selector{}), who1); v != held || len(m.w.ups) != 0 {
			t.Errorf("verdict %d, %d links", v, len(m.w.ups))
		}
		m.dialed(1)
	})
}

// Calls go back over the relay at once when the direct path is lost, and the more direct paths are lost the longer one must
// last before they move again.
func TestHub_DirectPathsThatDoNotLast(t *testing.T) {
	m := newMover(t)
	settle := moveSettle
	for range 8 {
		m.w.path = nil
		m.offer(false)
		l := m.direct()
		m.sleep(settle - 1)
		if m.pick() != m.relay {
			t.Fatalf("the calls have moved before %v", settle)
		}
		m.sleep(1)
		if m.pick() != l {
			t.Fatalf("the calls have not moved after %v", settle)
		}
		m.sleep(moveSteady - settle - 1)
		m.h.down(l, nil)
		m.offer(true)
		m.w.path = map[peer.ID]PathKind{"r": PathRelay}
		if _, v := m.h.pick(newCall(selector{}), who1); v != held {
			t.Fatalf("verdict %d", v)
		}
		m.dialed(1) // without a pause
		m.w.up(0)
		m.relay = m.pick()
		settle = min(2*settle, moveSettleMax)
	}
	m.w.path = nil
	m.offer(false)
	l := m.direct()
	m.sleep(settle)
	m.sleep(moveSteady)
	m.h.down(l, nil)
	if got := m.h.peers["r"].move.settle(); got != moveSettle {
		t.Errorf("after a path that lasted, one must last %v", got)
	}
}
