// Workers spreads work over all the nodes that offer to do it, on however many machines they run.
//
//	go run ./examples/workers -work        # on any machine of the network, any number of times
//	go run ./examples/workers -jobs 1000   # takes 1,000 numbers apart, on all of them
//
// Start and stop workers while the jobs run: nothing is configured, a new worker gets its share within seconds, one that
// is stopped with Ctrl-C ends what it has begun, and the jobs of one that is killed are done again by another.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/workers/work"
)

func main() {
	serve := flag.Bool("work", false, "be a worker, instead of giving work")
	jobs := flag.Int("jobs", 100, "how many numbers to take apart")
	network := flag.String("network", p2p.DefaultNetwork, "name of the network")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	node := p2p.NewNode(":0", p2p.WithName("workers"), p2p.WithNetwork(*network))
	var err error
	if *serve {
		pb.RegisterWorkerServiceServer(node, worker{})
		err = node.Run(ctx)
	} else {
		err = give(ctx, node, *jobs)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// give has numbers taken apart and prints who did how many of them.
func give(ctx context.Context, node *p2p.Node, jobs int) error {
	if err := node.StartServer(); err != nil {
		return err
	}
	defer node.Close()
	done, err := spread(ctx, node, jobs)
	for who, count := range done {
		fmt.Printf("%s did %d\n", who, count)
	}
	return err
}

// spread does the jobs, 16 at once, and returns how many each worker did.
func spread(ctx context.Context, node *p2p.Node, jobs int) (map[string]int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client := pb.NewWorkerServiceClient(node) // not one worker: whoever offers the service when a call is made
	todo := make(chan uint64)
	var mu sync.Mutex
	done := map[string]int{}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for n := range todo {
				// To take a number apart twice does no harm: when a worker dies over it, another one does it.
				var by peer.Peer // who answered, as the connection proves it
				_, err := client.Factor(ctx, &pb.FactorRequest{Number: n}, p2p.Repeatable(), grpc.Peer(&by))
				if err != nil {
					cancel(err)
					continue
				}
				mu.Lock()
				done[by.Addr.String()]++
				mu.Unlock()
			}
		})
	}
	for range jobs {
		select {
		case todo <- rand.Uint64N(1 << 40):
		case <-ctx.Done():
		}
	}
	close(todo)
	wg.Wait()
	return done, context.Cause(ctx)
}

type worker struct {
	pb.UnimplementedWorkerServiceServer
}

// Factor works for as long as somebody waits for it.
func (worker) Factor(ctx context.Context, req *pb.FactorRequest) (*pb.FactorResponse, error) {
	res := &pb.FactorResponse{}
	n := req.GetNumber()
	for p := uint64(2); p <= n/p; p++ {
		if p%4096 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		for ; n%p == 0; n /= p {
			res.Primes = append(res.Primes, p)
		}
	}
	if n > 1 {
		res.Primes = append(res.Primes, n)
	}
	return res, nil
}
