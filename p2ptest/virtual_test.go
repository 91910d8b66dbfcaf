package p2ptest_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/p2ptest"
)

// check calls to from from, and returns how long that took.
func check(ctx context.Context, from, to *p2p.Node) (time.Duration, error) {
	begin := time.Now()
	_, err := grpc_health_v1.NewHealthClient(from.Peer(to.ID().String())).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return time.Since(begin), err
}

// mustCheck is a call that fails the test when it fails, or takes more than a few seconds.
func mustCheck(t *testing.T, from, to *p2p.Node) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	took, err := check(ctx, from, to)
	if err != nil {
		t.Error(err)
	}
	return took
}

func TestVirtual_EveryNodeCallsEveryOtherWithoutAWait(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		var set []int
		nodes := net.Start(4, func(i int, _ *p2p.Node) { set = append(set, i) }, p2p.WithName("tester"))
		if len(nodes) != 4 || len(set) != 4 {
			t.Fatalf("%d nodes, set up %v", len(nodes), set)
		}
		for _, from := range nodes {
			for _, to := range nodes {
				mustCheck(t, from, to)
			}
		}
	})
}

func TestVirtual_TimeGoesByInMoments(t *testing.T) {
	wall := time.Now()
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		nodes := net.Start(2, nil)
		begin := time.Now()
		if ahead := time.Since(wall); ahead < -time.Minute || ahead > time.Minute {
			t.Errorf("the virtual clock begins %v beside the real one", ahead)
		}
		time.Sleep(10 * time.Minute)
		if took := time.Since(begin); took != 10*time.Minute {
			t.Errorf("it took %v", took)
		}
		mustCheck(t, nodes[0], nodes[1])
	})
	if took := time.Since(wall); took > 5*time.Minute {
		t.Errorf("ten minutes took %v", took)
	}
}

func TestNet_LatencyIsThatOfTheLink(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		nodes := net.Start(3, nil)
		net.Converge(10 * time.Second)
		net.Latency(20 * time.Millisecond)
		net.Latency(150*time.Millisecond, nodes[0], nodes[2])
		for to, want := range map[int]time.Duration{1: 40 * time.Millisecond, 2: 300 * time.Millisecond} {
			mustCheck(t, nodes[0], nodes[to]) // makes the tunnel
			if took := mustCheck(t, nodes[0], nodes[to]); took < want || took > want+30*time.Millisecond {
				t.Errorf("a call to node %d took %v, want a round trip of %v", to, took, want)
			}
		}
		net.Latency(time.Millisecond)
		if took := mustCheck(t, nodes[0], nodes[2]); took > 30*time.Millisecond {
			t.Errorf("a call took %v after the latency was set for all links", took)
		}
	})
}

func TestNet_LossIsMadeUpFor(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		net.Latency(5 * time.Millisecond)
		nodes := net.Start(3, nil)
		net.Converge(10 * time.Second)
		call := func() (sum time.Duration) {
			for range 300 {
				sum += mustCheck(t, nodes[0], nodes[1])
			}
			return sum
		}
		clean := call()
		net.Loss(0.1)
		lossy := call()
		t.Logf("300 calls took %v, with loss %v", clean, lossy)
		if lossy < clean*11/10 {
			t.Error("nothing was lost")
		}
	})
}

func TestNet_PartitionAndHeal(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		net.Latency(5 * time.Millisecond)
		nodes := net.Start(6, nil)
		t.Logf("one piece after %v", net.Converge(10*time.Second))
		time.Sleep(10 * time.Second) // all know the first: now they hear of one another
		net.Partition(nodes[:3], nodes[3:])
		time.Sleep(time.Minute)
		mustCheck(t, nodes[0], nodes[2])
		mustCheck(t, nodes[5], nodes[3])
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := check(ctx, nodes[0], nodes[5]); err == nil {
			t.Error("a call got over the partition")
		}
		net.Heal()
		t.Logf("one piece again after %v", net.Converge(15*time.Second))
		t.Logf("called again after %v more", net.Await(15*time.Second, func() string {
			if _, err := check(t.Context(), nodes[0], nodes[5]); err != nil {
				return err.Error() // a dial of before may still wait for its answer
			}
			return ""
		}))
	})
}

func TestNet_KillIsNotTold(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		nodes := net.Start(4, nil)
		net.Converge(10 * time.Second)
		victim := nodes[0].ID() // through which the others joined
		net.Kill(nodes[0])
		time.Sleep(time.Second)
		keeps := func(n *p2p.Node) bool {
			for _, p := range n.Peers() {
				if p.ID == victim && p.State == p2p.StateNeighbor {
					return true
				}
			}
			return false
		}
		if !keeps(nodes[1]) {
			t.Error("after a second a node knew that another's machine had failed")
		}
		t.Logf("noticed after %v", net.Converge(time.Minute))
		net.Heal()
		if keeps(nodes[1]) {
			t.Error("it is a neighbor")
		}
		later := net.Start(1, nil)[0] // through another than the first
		net.Converge(10 * time.Second)
		mustCheck(t, later, nodes[3])
	})
}

func TestNet_CloseIsAnOrderlyEnd(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		net.Latency(time.Millisecond)
		nodes := net.Start(3, nil)
		net.Converge(10 * time.Second)
		if err := nodes[1].Close(); err != nil {
			t.Error(err)
		}
		if took := net.Converge(time.Minute); took > 100*time.Millisecond {
			t.Errorf("the others saw it after %v", took)
		}
	})
}

func TestNet_NodeIsTheTestsToStart(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		first, second := net.Node(), net.Node()
		for _, n := range []*p2p.Node{first, second} {
			if err := n.StartServer(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if n := len(second.Peers()); n > 0 {
			t.Fatalf("%d peers without a join", n)
		}
		if err := second.JoinNetwork(first.Addrs()[0].String()); err != nil {
			t.Fatal(err)
		}
		net.Converge(5 * time.Second)
		net.Node() // is closed without a start
	})
}

// awaitCheck waits for a call to get through: those of before may fail with the connection that they were on.
func awaitCheck(t *testing.T, net *p2ptest.Net, from, to *p2p.Node) {
	t.Helper()
	net.Await(time.Minute, func() string {
		if _, err := check(t.Context(), from, to); err != nil {
			return err.Error()
		}
		return ""
	})
}

func TestNet_AgainIsTheSameMachine(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		nodes := net.Start(2, nil)
		victim := net.Node(p2p.WithIdentity(key))
		for i, end := range []func(){func() { net.Kill(victim) }, func() { _ = victim.Close() }} {
			if err := victim.JoinNetwork(nodes[0].Addrs()[0].String()); err != nil {
				t.Fatal(err)
			}
			if err := victim.StartServer(); err != nil {
				t.Fatal(err)
			}
			net.Converge(time.Minute)
			awaitCheck(t, net, nodes[0], victim)
			before := victim.Addrs()[0]
			end()
			again := net.Again(victim, 9400+i, p2p.WithIdentity(key))
			if err := again.JoinNetwork(nodes[1].Addrs()[0].String()); err != nil {
				t.Fatal(err)
			}
			if err := again.StartServer(); err != nil {
				t.Fatal(err)
			}
			ip, port := "/ip4/10.0.0.3/udp/", fmt.Sprint(9400+i)
			if got := again.Addrs()[0].String(); again.ID() != victim.ID() || !strings.HasPrefix(got, ip+port) || !strings.HasPrefix(before.String(), ip) {
				t.Errorf("%s came back as %s", before, got)
			}
			net.Converge(time.Minute)
			awaitCheck(t, net, nodes[0], again)
			if err := again.Close(); err != nil {
				t.Error(err)
			}
			victim = net.Again(again, 0, p2p.WithIdentity(key))
		}
	})
}
