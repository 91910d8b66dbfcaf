package broadcast

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// pair is two connected nodes; the first has joined the topic and the second subscribed, too.
func pair(t *testing.T, change func(i int, c *Config)) (*world, *Topic[text], *Subscription[text]) {
	t.Helper()
	w := newWorld(t, 2, change)
	w.connect(0, 1)
	a, b := join[text](t, w.buses[0], "news"), join[text](t, w.buses[1], "news")
	s := subscribe(t, b, 0)
	time.Sleep(2 * time.Second)
	return w, a, s
}

func TestPublish_IsHeardOnceByEverybody(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 5, nil)
		w.ring(1)
		var subs []*Subscription[text]
		var topics []*Topic[text]
		for _, b := range w.buses {
			topic := join[text](t, b, "news")
			topics = append(topics, topic)
			subs = append(subs, subscribe(t, topic, 0))
		}
		time.Sleep(2 * time.Second)
		must(t, topics[0].Publish(t.Context(), say("hello")))
		time.Sleep(10 * time.Second)
		for i, s := range subs {
			m := next(t, s)
			if m.From != w.hosts[0].ID() || m.Body.GetValue() != "hello" || time.Since(m.Time) > time.Minute || m.Missed != 0 {
				t.Errorf("node %d heard %v", i, m)
			}
			if got := heardBy(s); len(got) != 0 {
				t.Errorf("node %d heard %q, too", i, got)
			}
		}
	})
}

func TestSubscribe_SlowOneIsToldWhatItMissedAndHoldsUpNobody(t *testing.T) {
	inTime(t, func(t *testing.T) {
		_, a, fast := pair(t, nil)
		slow := subscribe(t, fast.topic, 3)
		for range 10 {
			must(t, a.Publish(t.Context(), say("x")))
			time.Sleep(100 * time.Millisecond)
		}
		if got := heardBy(fast); len(got) != 10 || fast.Missed() != 0 {
			t.Errorf("the fast one heard %d, missed %d", len(got), fast.Missed())
		}
		if got := heardBy(slow); len(got) != 3 || slow.Missed() != 7 {
			t.Errorf("the slow one heard %d, missed %d", len(got), slow.Missed())
		}
		must(t, a.Publish(t.Context(), say("y")))
		if m := next(t, slow); m.Missed != 7 || m.Body.GetValue() != "y" {
			t.Errorf("then it heard %v", m)
		}
	})
}

func TestSubscribe_EndsWithCloseWithTheTopicAndWithTheBus(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w, a, s := pair(t, nil)
		other := subscribe(t, s.topic, 0)
		s.Close()
		s.Close()
		must(t, a.Publish(t.Context(), say("x")))
		if m := next(t, other); m.Body.GetValue() != "x" {
			t.Errorf("the other heard %v", m)
		}
		if _, ok := <-s.C(); ok {
			t.Error("a closed subscription heard something")
		}
		must(t, s.topic.Close())
		must(t, s.topic.Close())
		if _, ok := <-other.C(); ok {
			t.Error("a subscription of a closed topic heard something")
		}
		if err := s.topic.Publish(t.Context(), say("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("publish on a closed topic: %v", err)
		}
		time.Sleep(time.Second)
		if got := a.Peers(); len(got) != 0 {
			t.Errorf("%v listen on a topic that was left", got)
		}
		again := subscribe(t, join[text](t, w.buses[1], "news"), 0)
		time.Sleep(12 * time.Second) // GossipSub takes nobody back sooner
		must(t, a.Publish(t.Context(), say("y")))
		if m := next(t, again); m.Body.GetValue() != "y" {
			t.Errorf("who came back heard %v", m)
		}
		w.close()
		for range again.Messages(t.Context()) {
			t.Error("a subscription of a closed bus heard something")
		}
		if _, err := Join[text](w.buses[0], "news"); !errors.Is(err, ErrClosed) {
			t.Errorf("join on a closed bus: %v", err)
		}
	})
}

func TestPublish_FailsWhenNobodyListens(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.connect(0, 1)
		a := join[text](t, w.buses[0], "news")
		start := time.Now()
		if err := a.Publish(t.Context(), say("x")); !errors.Is(err, ErrNoPeers) || time.Since(start) != DefaultWait {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Publish(ctx, say("x")); !errors.Is(err, ErrNoPeers) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a deadline: %v", err)
		}
		if err := a.Publish(t.Context(), say(string(make([]byte, MaxMessage)))); !errors.Is(err, ErrTooLarge) {
			t.Errorf("too large: %v", err)
		}
	})
}

// A deadline before a message's turn at the author's rate is a deadline like any other.
func TestPublish_ADeadlineBeforeItsTurn(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.connect(0, 1)
		topic := join[text](t, w.buses[0], "news")
		subscribe(t, join[text](t, w.buses[1], "news"), 2*Burst)
		for range Burst {
			must(t, topic.Publish(t.Context(), say("x")))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := topic.Publish(ctx, say("x")); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestPublish_WaitsForTheFirstListener(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.connect(0, 1)
		a := join[text](t, w.buses[0], "news")
		done := make(chan error, 1)
		go func() { done <- a.Publish(t.Context(), say("early")) }()
		time.Sleep(3 * time.Second)
		s := subscribe(t, join[text](t, w.buses[1], "news"), 0)
		must(t, <-done)
		if m := next(t, s); m.Body.GetValue() != "early" {
			t.Errorf("heard %v", m)
		}
	})
}

func TestPublish_IsHeldToItsRateAndLosesNothing(t *testing.T) {
	inTime(t, func(t *testing.T) {
		_, a, s := pair(t, nil)
		start := time.Now()
		heard := 0
		for range 2000 {
			must(t, a.Publish(t.Context(), say("x")))
			heard += len(heardBy(s))
		}
		took := time.Since(start)
		time.Sleep(5 * time.Second)
		if heard += len(heardBy(s)); heard != 2000 || s.Missed() > 0 {
			t.Errorf("%d heard, %d missed", heard, s.Missed())
		}
		if want := time.Second * (2000 - Burst) / Rate; took < want-time.Second || took > want+time.Second {
			t.Errorf("took %v, want %v", took, want)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		for range Burst {
			if err := a.Publish(ctx, say(string(make([]byte, MaxMessage/2)))); err != nil {
				return // it says so instead of dropping
			}
		}
		t.Error("no rate held it back")
	})
}

func TestJoin_TypesThatDoNotFitAreNotHeard(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 3, nil)
		w.ring(1)
		texts, times := join[text](t, w.buses[0], "news"), join[*durationpb.Duration](t, w.buses[1], "news")
		all := join[*anypb.Any](t, w.buses[2], "news")
		s0, s1, s2 := subscribe(t, texts, 0), subscribe(t, times, 0), subscribe(t, all, 0)
		time.Sleep(2 * time.Second)
		must(t, texts.Publish(t.Context(), say("a")))
		must(t, times.Publish(t.Context(), durationpb.New(time.Second)))
		packed, err := anypb.New(say("b"))
		must(t, err)
		must(t, all.Publish(t.Context(), packed))
		time.Sleep(5 * time.Second)
		got := heardBy(s0)
		slices.Sort(got)
		if !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("the one of texts heard %q", got)
		}
		if n := len(s1.C()); n != 1 {
			t.Errorf("the one of times heard %d", n)
		}
		var names []string
		for range len(s2.C()) {
			m := <-s2.C()
			names = append(names, string(m.Body.MessageName()))
		}
		slices.Sort(names)
		if want := []string{"google.protobuf.Duration", "google.protobuf.StringValue", "google.protobuf.StringValue"}; !slices.Equal(names, want) {
			t.Errorf("the one of all heard %q", names)
		}
	})
}

func TestAllow_StrangersAreNeitherHeardNorTold(t *testing.T) {
	inTime(t, func(t *testing.T) {
		var stranger peer.ID
		w := newWorld(t, 3, func(i int, c *Config) {
			if i < 2 {
				c.Allow = func(p peer.ID, topic string) bool { return p != stranger && topic == "news" }
			}
		})
		stranger = w.hosts[2].ID()
		w.ring(1)
		var topics []*Topic[text]
		var subs []*Subscription[text]
		for _, b := range w.buses {
			topics = append(topics, join[text](t, b, "news"))
			subs = append(subs, subscribe(t, topics[len(topics)-1], 2000))
		}
		time.Sleep(3 * time.Second)
		for range 1000 {
			must(t, topics[2].Publish(t.Context(), say("from the stranger")))
		}
		must(t, topics[0].Publish(t.Context(), say("from a friend")))
		time.Sleep(10 * time.Second)
		for i, s := range subs[:2] {
			if got := heardBy(s); !slices.Equal(got, []string{"from a friend"}) {
				t.Errorf("node %d heard %d", i, len(got))
			}
		}
		if got := heardBy(subs[2]); slices.Contains(got, "from a friend") {
			t.Error("the stranger was told")
		}
	})
}

func TestAllow_StrangersWhoOnlyListenAreNotTold(t *testing.T) {
	inTime(t, func(t *testing.T) {
		var stranger peer.ID
		w := newWorld(t, 3, func(i int, c *Config) {
			if i < 2 {
				c.Allow = func(p peer.ID, _ string) bool { return p != stranger }
			}
		})
		stranger = w.hosts[2].ID()
		w.ring(1)
		var subs []*Subscription[text]
		var topics []*Topic[text]
		for _, b := range w.buses {
			topics = append(topics, join[text](t, b, "news"))
			subs = append(subs, subscribe(t, topics[len(topics)-1], 0))
		}
		time.Sleep(3 * time.Second)
		for range 10 {
			must(t, topics[0].Publish(t.Context(), say("among friends")))
			time.Sleep(time.Second)
		}
		time.Sleep(10 * time.Second)
		if a, b := len(heardBy(subs[1])), len(heardBy(subs[2])); a != 10 || b != 0 {
			t.Errorf("the friend heard %d, the stranger %d", a, b)
		}
	})
}

func TestBus_NetworksDoNotHearOneAnother(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 4, func(i int, c *Config) { c.Network = []string{"one", "two"}[i%2] })
		w.ring(1, 2)
		var topics []*Topic[text]
		var subs []*Subscription[text]
		for _, b := range w.buses {
			topics = append(topics, join[text](t, b, "news"))
			subs = append(subs, subscribe(t, topics[len(topics)-1], 0))
		}
		time.Sleep(2 * time.Second)
		must(t, topics[0].Publish(t.Context(), say("one")))
		must(t, topics[1].Publish(t.Context(), say("two")))
		time.Sleep(5 * time.Second)
		for i, s := range subs {
			if got, want := heardBy(s), []string{"one", "two"}[i%2]; !slices.Equal(got, []string{want}) {
				t.Errorf("node %d heard %q", i, got)
			}
		}
	})
}

func TestBus_DoesNothingBeforeTheFirstJoin(t *testing.T) {
	asked := false
	b := New(Config{Host: func() (corehost.Host, error) { asked = true; return nil, errors.New("no host yet") }})
	if asked {
		t.Error("the host was asked for")
	}
	if _, err := Join[text](b, "news"); err == nil || err.Error() != "no host yet" {
		t.Errorf("join without a host: %v", err)
	}
	if _, err := Join[text](b, "no spaces"); err == nil {
		t.Error("a bad name was accepted")
	}
	must(t, b.Close())
	must(t, b.Close())
}

func TestSubscribed_RemembersNothingOfWhoHasLeft(t *testing.T) {
	here := true
	s := newSubscribed(wireTopic("test", ""), func(peer.ID, string) bool { return true })
	s.here = func(peer.ID) bool { return here }
	news := []*pb.RPC_SubOpts{{Subscribe: new(true), Topicid: new(wireTopic("test", "news"))}}
	if out, err := s.FilterIncomingSubscriptions("p", news); err != nil || len(out) != 1 {
		t.Errorf("of one who is here: %v, %v", out, err)
	}
	here = false
	s.gone("p")
	if out, err := s.FilterIncomingSubscriptions("p", news); err != nil || len(out) != 0 { // it was under way
		t.Errorf("of one who has left: %v, %v", out, err)
	}
	if len(s.topics) != 0 {
		t.Errorf("remembered: %v", s.topics)
	}
}
