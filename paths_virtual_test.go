package p2p_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/p2ptest"
)

// infoOf is what a node knows of another.
func infoOf(n, of *p2p.Node) p2p.PeerInfo {
	for _, p := range n.Peers() {
		if p.ID == of.ID() {
			return p
		}
	}
	return p2p.PeerInfo{}
}

// behind starts two nodes behind routers of a kind that have one relay, and returns them and the relay. The second serves.
func behind(t *testing.T, net *p2ptest.Net, kind hosttest.RouterKind, opts ...p2p.Option) (first, second, relay *p2p.Node) {
	t.Helper()
	net.Latency(15 * time.Millisecond)
	relay = net.Router(hosttest.Open).Node(p2p.Relay(), p2p.WithOpen())
	start(t, relay)
	wan := append([]p2p.Option{p2p.WAN(relay.Addrs()[0].String()), p2p.WithOpen()}, opts...)
	first, second = net.Router(kind).Node(wan...), net.Router(kind).Node(wan...)
	pb.RegisterGreeterServiceServer(second, nodetest.Greeter{Who: "second"})
	start(t, second)
	start(t, first)
	return first, second, relay
}

func TestPaths_AreToldWhenTheyChange(t *testing.T) {
	reg := prometheus.NewRegistry()
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		first, second, relay := behind(t, net, hosttest.PortRestricted, p2p.WithMetrics(reg))
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		events := first.PeerEvents(ctx)
		if _, err := nodetest.Greet(t, first.Peer(second.ID().String())); err != nil {
			t.Fatal(err)
		}
		for e := range events {
			if e.Kind != p2p.PeerPathChanged || e.Peer.ID != second.ID() {
				continue
			}
			if e.Peer.Path != string(grpcstream.PathDirect) || e.Peer.Relay != "" || e.Peer.NotDirect != "" {
				t.Errorf("the path became %q by %q, not direct because %q: want a direct one", e.Peer.Path, e.Peer.Relay, e.Peer.NotDirect)
			}
			break
		}
		p := infoOf(first, second)
		if p.Path != string(grpcstream.PathDirect) || p.PathSince.IsZero() || time.Since(p.PathSince) > 30*time.Second {
			t.Errorf("the path is %q since %v", p.Path, p.PathSince)
		}
		net.Await(10*time.Second, func() string { // it has not ended yet when the first of its dials gets through
			all := infoOf(first, second).Attempts
			if len(all) == 0 || all[len(all)-1].Err != "" {
				return fmt.Sprintf("the attempts are %+v: want one that succeeded at the end", all)
			}
			return ""
		})
		if st := first.Reachability(); len(st.Relays) != 1 || st.Relays[0].ID != relay.ID() || !st.Relays[0].Reserved {
			t.Errorf("it is reached by %+v, want its relay", st.Relays)
		}
	})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "p2p_node_path_changes_total" && f.GetMetric()[0].GetLabel()[0].GetValue() == "direct" && f.GetMetric()[0].GetCounter().GetValue() >= 1 {
			return
		}
	}
	t.Error("no change of a path was counted")
}

func TestPaths_ARelayedOneSaysWhy(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		first, second, relay := behind(t, net, hosttest.Symmetric)
		if _, err := nodetest.Greet(t, first.Peer(second.ID().String())); err != nil {
			t.Fatal(err)
		}
		net.Await(30*time.Second, func() string {
			p := infoOf(first, second)
			switch {
			case p.Path != string(grpcstream.PathRelay) || p.Relay != relay.ID():
				return "the path is " + p.Path + " by " + p.Relay.String()
			case len(p.Attempts) == 0 || p.NotDirect == "":
				return "nothing was attempted, or nothing is said of it: " + p.NotDirect
			case p.Attempts[0].Err == "":
				return "the first attempt has succeeded"
			}
			return ""
		})
	})
}

// TestPaths_NobodyToldOfThePeer has a node that knows an ID and a relay: the relay knows where the peer is.
func TestPaths_NobodyToldOfThePeer(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		first, second, _ := behind(t, net, hosttest.PortRestricted)
		if got, err := nodetest.Greet(t, first.Peer(second.ID().String())); err != nil || got == "" {
			t.Fatalf("by its ID: %q, %v", got, err)
		}
		if got, err := nodetest.Greet(t, first); err != nil || got == "" {
			t.Fatalf("by its service: %q, %v", got, err)
		}
	})
}

// TestBroadcast_AcrossNATs has two that hear each other while a relay carries for them, which takes no part itself, and
// after they have got a direct connection.
func TestBroadcast_AcrossNATs(t *testing.T) {
	for _, kind := range []hosttest.RouterKind{hosttest.Symmetric, hosttest.PortRestricted} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
				first, second, _ := behind(t, net, kind)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				out, _ := tuned(t, first)
				_, sub := tuned(t, second)
				want := grpcstream.PathRelay
				if kind == hosttest.PortRestricted {
					want = grpcstream.PathDirect
				}
				for i := range 20 {
					if i == 1 { // the first goes over the relay, and what is on the way at the move may be lost
						net.Await(time.Minute, func() string {
							if got, n := infoOf(first, second).Path, len(first.Host().Network().ConnsToPeer(second.ID())); got != string(want) || got == string(grpcstream.PathDirect) && n != 1 {
								return fmt.Sprintf("the path is %q, over %d connections", got, n)
							}
							return ""
						})
						time.Sleep(time.Second)
					}
					net.Await(10*time.Second, func() string {
						if err := out.Publish(ctx, wrapperspb.String(fmt.Sprint(i))); err != nil {
							return err.Error()
						}
						return ""
					})
					time.Sleep(time.Second)
				}
				heard := 0
				for m := range sub.Messages(ctx) {
					if m.Body.GetValue() != fmt.Sprint(heard) {
						t.Fatalf("%q after %d messages", m.Body.GetValue(), heard)
					}
					if heard++; heard == 20 {
						break
					}
				}
				if got := infoOf(first, second).Path; got != string(want) {
					t.Errorf("in the end the path is %q, want %q", got, want)
				}
			})
		})
	}
}
