package p2ptest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/p2ptest"
)

// mayCheck tells whether a call from a node of its own, which knows to by the address at, gets through.
func mayCheck(t *testing.T, from *p2ptest.Router, to *p2p.Node, at string) bool {
	t.Helper()
	n := from.Node()
	if err := n.StartServer(); err != nil {
		t.Fatal(err)
	}
	if err := n.JoinNetwork(at); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := check(ctx, n, to)
	return err == nil
}

// seenAs returns the address at which public sees n.
func seenAs(t *testing.T, public, n *p2p.Node) string {
	t.Helper()
	conns := public.Host().Network().ConnsToPeer(n.ID())
	if len(conns) == 0 {
		t.Fatal("they are not connected")
	}
	return fmt.Sprintf("%s/p2p/%s", conns[0].RemoteMultiaddr(), n.ID())
}

func TestNet_RouterKeepsCallsOut(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		net.Latency(15 * time.Millisecond)
		open, home := net.Router(hosttest.Open), net.Router(hosttest.PortRestricted)
		public, inside := open.Start(1, nil)[0], home.Start(1, nil)[0]
		mustCheck(t, inside, public)
		mustCheck(t, public, inside)
		if !mayCheck(t, home, inside, inside.Addrs()[0].String()) {
			t.Error("no call on the LAN behind a router")
		}
		for _, from := range []*p2ptest.Router{open, net.Router(hosttest.FullCone).Router(hosttest.Symmetric)} {
			if mayCheck(t, from, inside, inside.Addrs()[0].String()) {
				t.Error("a call got in by a private address")
			}
			if mayCheck(t, from, inside, seenAs(t, public, inside)) {
				t.Error("a call got in by an address that others may not use")
			}
		}
	})
}

func TestNet_RouterForgetsAndMoves(t *testing.T) {
	for name, change := range map[string]func(*p2ptest.Router){
		"flush": (*p2ptest.Router).FlushMappings, "renumber": (*p2ptest.Router).Renumber,
	} {
		t.Run(name, func(t *testing.T) {
			p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
				open, home := net.Router(hosttest.Open), net.Router(hosttest.FullCone)
				public, inside := open.Start(1, nil)[0], home.Start(1, nil)[0]
				at := seenAs(t, public, inside)
				if !mayCheck(t, open, inside, at) {
					t.Fatal("no call got in by the mapped address")
				}
				change(home)
				if mayCheck(t, open, inside, at) {
					t.Error("a call got in by an address that is gone")
				}
				mustCheck(t, inside, public)
			})
		})
	}
}

func TestNet_RouterHairpin(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		home := net.Router(hosttest.FullCone)
		public, inside := net.Router(hosttest.Open).Start(1, nil)[0], home.Start(1, nil)[0]
		for _, on := range []bool{false, true} {
			home.Hairpin(on)
			if got := mayCheck(t, home, inside, seenAs(t, public, inside)); got != on {
				t.Errorf("a call got through: %v", got)
			}
		}
	})
}
