package p2p_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/internal/pace"
	"github.com/lynn9388/p2p/p2ptest"
	"github.com/lynn9388/p2p/protocols/broadcast"
)

type said = *wrapperspb.StringValue

// tuned joins a topic with a node and subscribes.
func tuned(t *testing.T, n *p2p.Node) (*broadcast.Topic[said], *broadcast.Subscription[said]) {
	t.Helper()
	topic, err := broadcast.Join[said](n.Broadcast(), "news")
	if err != nil {
		t.Fatal(err)
	}
	s, err := topic.Subscribe(2000)
	if err != nil {
		t.Fatal(err)
	}
	return topic, s
}

// A network falls into parts for a minute. Soon after it has healed, what a node of each part says reaches everybody.
func TestPartition_BroadcastReachesEveryoneAgain(t *testing.T) {
	for seed := range uint64(pace.Of(20, 2)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) { partAndBroadcast(t, net, pace.Of(40, 10), seed) })
		})
	}
}

func partAndBroadcast(t *testing.T, net *p2ptest.Net, count int, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 9))
	latency := time.Duration(1+rng.IntN(30)) * time.Millisecond
	net.Latency(latency)
	nodes := net.Start(count, nil)
	net.Converge(30 * time.Second)
	topics, subs := make([]*broadcast.Topic[said], count), make([]*broadcast.Subscription[said], count)
	for i, n := range nodes {
		topics[i], subs[i] = tuned(t, n)
	}
	time.Sleep(30 * time.Second)
	order, cut := rng.Perm(count), 1+rng.IntN(count-1)
	var groups [2][]*p2p.Node
	for i, at := range order {
		side := 0
		if i >= cut {
			side = 1
		}
		groups[side] = append(groups[side], nodes[at])
	}
	net.Partition(groups[:]...)
	time.Sleep(40 * time.Second)
	short, stop := context.WithTimeout(t.Context(), time.Second)
	_ = topics[order[0]].Publish(short, wrapperspb.String("inside")) // the only one of a part has nobody to tell
	stop()
	time.Sleep(19 * time.Second)
	for i, s := range subs {
		for range len(s.C()) {
			if <-s.C(); !slices.Contains(groups[0], nodes[i]) {
				t.Errorf("node %d heard something over the partition", i)
			}
		}
	}
	net.Heal()
	healed := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), healedWithin)
	defer cancel()
	var wg sync.WaitGroup
	for _, from := range []int{order[0], order[count-1]} { // one of each part says something all the time
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := topics[from].Publish(ctx, wrapperspb.String(fmt.Sprint(from, " ", n))); err != nil && !errors.Is(err, broadcast.ErrNoPeers) && ctx.Err() == nil {
					t.Errorf("node %d: %v", from, err)
				}
				select {
				case <-ctx.Done():
				case <-time.After(500 * time.Millisecond):
				}
			}
		})
	}
	var last most
	for i, s := range subs { // every node hears both
		wg.Go(func() {
			of := map[peer.ID]bool{}
			for m := range s.Messages(ctx) {
				if of[m.From] = true; len(of) == 2 {
					last.see(int64(time.Since(healed)))
					return
				}
			}
			t.Errorf("node %d hears %d of 2 authors %v after healing", i, len(of), time.Since(healed))
		})
	}
	wg.Wait()
	t.Logf("seed %d: %d nodes in parts of %d and %d, latency %v: everybody hears everybody %v after healing",
		seed, count, len(groups[0]), len(groups[1]), latency, time.Duration(last.Load()))
}

func TestBroadcast_BeforeTheStartAndAfterTheEnd(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, network *p2ptest.Net) {
		n := network.Node()
		if _, err := broadcast.Join[said](n.Broadcast(), "news"); !errors.Is(err, p2p.ErrNotStarted) {
			t.Errorf("before the start: %v", err)
		}
		if err := n.StartServer(); err != nil {
			t.Fatal(err)
		}
		_, s := tuned(t, n)
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if _, ok := <-s.C(); ok {
			t.Error("a closed node heard something")
		}
		if _, err := broadcast.Join[said](n.Broadcast(), "news"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestBroadcast_NodesWithoutATopicDoNothingForIt(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		nodes := net.Start(2, nil)
		for _, p := range nodes[0].Host().Mux().Protocols() {
			if strings.Contains(string(p), "meshsub") || strings.Contains(string(p), "answer") {
				t.Errorf("a node that joined nothing speaks %s", p)
			}
		}
	})
}

func TestBroadcast_AuthorizerDecidesWhoPublishesAndHears(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		var stranger atomic.Value
		var asked atomic.Bool
		guarded := p2p.WithAuthorizer(func(_ context.Context, caller p2p.PeerInfo, method string) error {
			if method == "/p2p.broadcast.v1.Topic/news" {
				asked.Store(true)
			}
			if caller.ID == stranger.Load() {
				return errors.New("not you")
			}
			return nil
		})
		nodes := net.Start(2, nil, guarded)
		other := net.Start(1, nil)[0]
		stranger.Store(other.ID())
		net.Converge(30 * time.Second)
		topic, _ := tuned(t, nodes[0])
		_, heard := tuned(t, nodes[1])
		theirs, told := tuned(t, other)
		time.Sleep(5 * time.Second)
		for range 1000 {
			if err := theirs.Publish(t.Context(), wrapperspb.String("strange")); err != nil {
				t.Fatal(err)
			}
		}
		if err := topic.Publish(t.Context(), wrapperspb.String("news")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if n := len(heard.C()); n != 1 {
			t.Errorf("%d messages were heard", n)
		}
		for range len(told.C()) {
			if m := <-told.C(); m.From != other.ID() {
				t.Errorf("the stranger was told %q", m.Body.GetValue())
			}
		}
		if !asked.Load() {
			t.Error("the authorizer was not asked about the topic")
		}
	})
}
