package p2p_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/p2ptest"
	"github.com/lynn9388/p2p/protocols/broadcast"
)

// TestLAN_IsNotLedBeyondItsLink has a node of the default profile beside one that has a relay: what that one knows of the
// world outside is no reason to go there.
func TestLAN_IsNotLedBeyondItsLink(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		net.Latency(15 * time.Millisecond)
		relay := net.Router(hosttest.Open).Node(p2p.Relay(), p2p.WithOpen())
		start(t, relay)
		place := relay.Addrs()[0].String()
		home := net.Router(hosttest.PortRestricted)
		wan := home.Node(p2p.WAN(place), p2p.WithOpen())
		start(t, wan)
		net.Await(10*time.Second, func() string {
			if infoOf(wan, relay).State != p2p.StateNeighbor {
				return "the relay is no neighbor of the node that named it"
			}
			return ""
		})
		lan := home.Node()
		if err := lan.JoinNetwork(wan.Addrs()[0].String()); err != nil {
			t.Fatal(err)
		}
		start(t, lan)
		net.Await(10*time.Second, func() string {
			if infoOf(lan, wan).State != p2p.StateNeighbor {
				return "the two at home are no neighbors"
			}
			return ""
		})
		answering(t, wan)
		asked := answering(t, lan)
		time.Sleep(2 * time.Minute) // it asks its neighbor for others, again and again
		if got := answersTo(t, relay); len(got) != 1 || got[0] != wan.ID() || !asked.Load() {
			t.Errorf("the relay asked it: %v, and was answered by %v", asked.Load(), got)
		}
		if p := infoOf(lan, relay); p.State != "" {
			t.Errorf("it knows the relay: %+v", p)
		}
		if c := lan.Host().Network().ConnsToPeer(relay.ID()); len(c) > 0 {
			t.Errorf("it has connected to the relay: %v", c)
		}
		// Its user may lead it there, and from there on.
		if err := lan.JoinNetwork(place); err != nil {
			t.Fatal(err)
		}
		net.Await(10*time.Second, func() string {
			if infoOf(lan, relay).State != p2p.StateNeighbor {
				return "it has not joined where its user told it to"
			}
			return ""
		})
	})
}

// answering has a node hear broadcast questions, and answer them.
func answering(t *testing.T, n *p2p.Node) (asked *atomic.Bool) {
	t.Helper()
	asked = new(atomic.Bool)
	topic, err := broadcast.Join[*wrapperspb.BoolValue](n.Broadcast(), "who")
	if err != nil {
		t.Fatal(err)
	}
	_, err = broadcast.Handle(topic, func(context.Context, peer.ID, *wrapperspb.BoolValue) (*wrapperspb.BoolValue, error) {
		asked.Store(true)
		return wrapperspb.Bool(true), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return asked
}

// answersTo returns who answers a broadcast question of a node.
func answersTo(t *testing.T, n *p2p.Node) (from []peer.ID) {
	t.Helper()
	topic, err := broadcast.Join[*wrapperspb.BoolValue](n.Broadcast(), "who")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for a, err := range broadcast.Query[*wrapperspb.BoolValue](ctx, topic, wrapperspb.Bool(true), 0) {
		if err != nil {
			t.Errorf("%s: %v", a.From, err)
		}
		from = append(from, a.From)
	}
	return from
}
