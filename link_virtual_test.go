package p2p_test

import (
	"testing"
	"time"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/p2ptest"
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
		time.Sleep(2 * time.Minute) // it asks its neighbor for others, again and again
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
