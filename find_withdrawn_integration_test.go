package p2p_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/discovery/mdns"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/p2ptest"
)

// counting counts its calls.
type counting struct {
	pb.UnimplementedGreeterServiceServer
	calls *atomic.Int64
}

func (c counting) Greet(context.Context, *pb.GreetRequest) (*pb.GreetResponse, error) {
	c.calls.Add(1)
	return &pb.GreetResponse{}, nil
}

// instancesOf returns how many instances of the greeter a node finds.
func instancesOf(t *testing.T, n *p2p.Node, wait time.Duration) (count int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	for i := range n.Instances(ctx, "hello.v1.GreeterService") { //nolint:errcheck // the search ends with its context
		if i.ID != "" {
			count++
		}
	}
	return count
}

// TestFind_AWithdrawnServiceIsNotCalled: the only instance of a service, which is in the table, is closed gracefully, or
// vanishes.
func TestFind_AWithdrawnServiceIsNotCalled(t *testing.T) {
	t.Parallel()
	const lifetime = 4 * time.Second
	for _, graceful := range []bool{true, false} {
		t.Run(fmt.Sprintf("graceful %t", graceful), func(t *testing.T) {
			within := 5 * time.Second
			if !graceful {
				within = lifetime
			}
			network := p2ptest.Network()
			var nodes []*p2p.Node
			for i := range 4 {
				n := p2p.NewNode("localhost:0", append(p2ptest.Options(network), p2p.WithDHT(), p2p.WithRecordLifetime(lifetime),
					p2p.WithDiscoveryTimeout(10*time.Second))...)
				if i == 3 {
					pb.RegisterGreeterServiceServer(n, nodetest.Greeter{Who: "last"})
				}
				if i > 0 {
					if err := n.JoinNetwork(nodes[i-1].Addrs()[0].String()); err != nil {
						t.Fatal(err)
					}
				}
				start(t, n)
				nodes = append(nodes, n)
			}
			mustGreet(t, nodes[0])
			if graceful {
				if err := nodes[3].Close(); err != nil {
					t.Error(err)
				}
			} else if err := nodes[3].Host().Network().Close(); err != nil { // its sockets, without a word of gRPC's
				t.Error(err)
			}
			gone := time.Now()
			poll.Until(t, within*slack, func() string {
				if len(known(nodes[0], "hello.v1.GreeterService")) > 0 {
					return "it is still an instance"
				}
				return ""
			})
			t.Logf("known no more %v after it was gone, want %v", time.Since(gone).Round(time.Millisecond), within)
			// The record is older than its lifetime now: nobody hands it on.
			time.Sleep(time.Until(gone.Add(lifetime + time.Second)))
			if got := instancesOf(t, nodes[0], 2*time.Second); got != 0 {
				t.Errorf("%d instances after the record's lifetime", got)
			}
		})
	}
}

// TestFind_NetworksOfDifferentNamesNeverMeet: two networks on one link, found by multicast on loopback, introduced to one
// another, and with tables.
func TestFind_NetworksOfDifferentNamesNeverMeet(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	var calls [2]atomic.Int64
	var nodes [2][]*p2p.Node
	names := [2]string{p2ptest.Network(), p2ptest.Network()}
	for i := range 3 {
		for w, network := range names {
			n := p2p.NewNode("localhost:0", append(p2ptest.Options(network),
				p2p.WithDiscovery(mdns.New(mdns.Config{Network: network, Logger: quiet})),
				p2p.WithDHT(), p2p.WithDiscoveryTimeout(time.Second))...)
			if i == 2 && w == 1 {
				pb.RegisterGreeterServiceServer(n, counting{calls: &calls[w]})
			}
			for _, known := range [][]*p2p.Node{nodes[0], nodes[1]} { // of both names
				if len(known) > 0 {
					if err := n.JoinNetwork(known[len(known)-1].Addrs()[0].String()); err != nil {
						t.Fatal(err)
					}
				}
			}
			start(t, n)
			nodes[w] = append(nodes[w], n)
		}
	}
	poll.Until(t, 30*time.Second, func() string {
		for _, of := range nodes {
			for i, n := range of {
				if got := len(neighborsOf(n)); got != 2 {
					return fmt.Sprintf("node %d has %d neighbors, want 2", i, got)
				}
			}
		}
		return ""
	})
	mustGreet(t, nodes[1][0])
	before := calls[1].Load()
	for w, of := range nodes {
		for i, n := range of {
			for _, p := range neighborsOf(n) {
				for j, other := range nodes[1-w] {
					if p == other.ID() {
						t.Errorf("node %d of network %d has node %d of the other as a neighbor", i, w, j)
					}
				}
			}
		}
	}
	for i, n := range nodes[0] {
		if _, err := nodetest.Greet(t, n); err == nil {
			t.Errorf("node %d called a service of the other network by name", i)
		}
		if _, err := nodetest.Greet(t, n.Peer(nodes[1][2].Addrs()[0].String())); err == nil {
			t.Errorf("node %d called a node of the other network", i)
		}
		if got := instancesOf(t, n, time.Second); got != 0 {
			t.Errorf("node %d lists %d instances of the other network", i, got)
		}
	}
	if got := calls[1].Load(); got != before {
		t.Errorf("%d calls came from the other network", got-before)
	}
}

// TestFind_AStrangerInThePoolGetsNoCall: a node that is not on the list offers the service, too, and knows where the
// others are.
func TestFind_AStrangerInThePoolGetsNoCall(t *testing.T) {
	network := p2ptest.Network()
	callerKey, caller := nodetest.NewKey(t)
	serverKey, server := nodetest.NewKey(t)
	var honest, foreign atomic.Int64
	listed := []p2p.Option{p2p.WithAllow(caller, server), p2p.WithDHT()}
	a := p2p.NewNode("localhost:0", append(append(p2ptest.Options(network), listed...), p2p.WithIdentity(callerKey))...)
	start(t, a)
	b := p2p.NewNode("localhost:0", append(append(p2ptest.Options(network), listed...), p2p.WithIdentity(serverKey))...)
	pb.RegisterGreeterServiceServer(b, counting{calls: &honest})
	s := p2p.NewNode("localhost:0", append(p2ptest.Options(network), p2p.WithDHT())...)
	pb.RegisterGreeterServiceServer(s, counting{calls: &foreign})
	for _, n := range []*p2p.Node{b, s} {
		if err := n.JoinNetwork(a.Addrs()[0].String()); err != nil {
			t.Fatal(err)
		}
		start(t, n)
	}
	if err := a.JoinNetwork(s.Addrs()[0].String()); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		mustGreet(t, a)
	}
	if honest.Load() != 1000 || foreign.Load() != 0 {
		t.Errorf("%d calls came to the listed instance, %d to the stranger", honest.Load(), foreign.Load())
	}
}
