package p2p_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/internal/pace"
	"github.com/lynn9388/p2p/p2ptest"
)

// greeterName is the name of the service that tests call by its name.
const greeterName = "hello.v1.GreeterService"

// healedWithin is how soon after a partition every call works again.
const healedWithin = 15 * time.Second

// A network falls into parts for a minute. Soon after it has healed, every node calls every other one by its ID, and the
// service by its name, which only the nodes of one part offer.
func TestPartition_CallsReachEveryoneAgain(t *testing.T) {
	for seed := range uint64(pace.Of(20, 2)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) { partAndHeal(t, net, pace.Of(40, 8), seed) })
		})
	}
}

func partAndHeal(t *testing.T, net *p2ptest.Net, count int, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 8))
	latency, loss, cut := time.Duration(1+rng.IntN(30))*time.Millisecond, float64(rng.IntN(3))/200, 1+rng.IntN(count-1)
	net.Latency(latency)
	net.Loss(loss)
	order := rng.Perm(count)
	part := make([]int, count) // of each node
	for i, at := range order {
		if i >= cut {
			part[at] = 1 + rng.IntN(2)
		}
	}
	nodes := net.Start(count, func(i int, n *p2p.Node) {
		if part[i] == 0 && (i == order[0] || rng.IntN(2) == 0) {
			pb.RegisterGreeterServiceServer(n, nodetest.Greeter{Who: fmt.Sprint(i)})
		}
	})
	net.Converge(30*time.Second, greeterName)
	time.Sleep(30 * time.Second)

	groups := make([][]*p2p.Node, 3)
	for i, n := range nodes {
		groups[part[i]] = append(groups[part[i]], n)
	}
	net.Partition(groups...)
	parted := time.Now()
	time.Sleep(50 * time.Second)
	var wg sync.WaitGroup
	for _, g := range groups[1:] {
		for _, n := range g {
			wg.Go(func() {
				if text, err := nodetest.Greet(t, n); err == nil {
					t.Errorf("over the partition %q answered", text)
				}
			})
		}
	}
	wg.Wait()
	time.Sleep(time.Until(parted.Add(time.Minute)))
	net.Heal()
	healed := time.Now()
	var last most
	ctx, cancel := context.WithTimeout(t.Context(), healedWithin)
	defer cancel()
	for i, from := range nodes {
		wg.Go(func() {
			for j, to := range nodes {
				if err := nodetest.UntilAnswered(ctx, from.Peer(to.ID().String()), checkHealth); err != nil {
					t.Errorf("%v after healing node %d does not reach node %d: %v", time.Since(healed), i, j, err)
				}
			}
			if err := nodetest.UntilAnswered(ctx, from, nodetest.SayHello); err != nil {
				t.Errorf("%v after healing node %d finds no instance: %v", time.Since(healed), i, err)
			}
			last.see(int64(time.Since(healed)))
		})
	}
	wg.Wait()
	t.Logf("seed %d: %d nodes in parts of %d, %d and %d, latency %v, loss %.1f %%: all calls work %v after healing",
		seed, count, len(groups[0]), len(groups[1]), len(groups[2]), latency, 100*loss, time.Duration(last.Load()))
}

func checkHealth(ctx context.Context, cc grpc.ClientConnInterface) error {
	_, err := grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}
