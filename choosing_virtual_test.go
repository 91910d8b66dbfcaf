package p2p_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/p2ptest"
)

// An instance counts the calls that it gets, and refuses those that were meant for another deployment than its own.
type instance struct {
	pb.UnimplementedGreeterServiceServer
	deployment string
	calls      atomic.Int64
}

func (i *instance) Greet(_ context.Context, req *pb.GreetRequest) (*pb.GreetResponse, error) {
	i.calls.Add(1)
	if req.GetName() != i.deployment {
		return nil, status.Errorf(codes.Internal, "a call for %q at %q", req.GetName(), i.deployment)
	}
	return &pb.GreetResponse{Text: i.deployment}, nil
}

// load makes calls at a steady rate until stop is called, which returns how many were made and the errors.
func load(t *testing.T, cc grpc.ClientConnInterface, deployment string, every time.Duration) (stop func() (int, []error)) {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	made := 0
	end := make(chan struct{})
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			made++
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				if _, err := pb.NewGreeterServiceClient(cc).Greet(ctx, &pb.GreetRequest{Name: deployment}); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, err)
				}
			})
		}
	})
	return func() (int, []error) {
		close(end)
		wg.Wait()
		return made, errs
	}
}

func TestChoosing_NotServingGetsNoCallUntilItServesAgain(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		net.Latency(5 * time.Millisecond)
		var instances [3]instance
		nodes := net.Start(4, func(i int, n *p2p.Node) {
			if i > 0 {
				pb.RegisterGreeterServiceServer(n, &instances[i-1])
			}
		})
		net.Converge(10*time.Second, greeterName)
		counts := func() (out [3]int64) {
			for i := range instances {
				out[i] = instances[i].calls.Swap(0)
			}
			return out
		}
		stop := load(t, nodes[0], "", 5*time.Millisecond)
		time.Sleep(2 * time.Second)
		if got := counts(); min(got[0], got[1], got[2]) < 100 {
			t.Errorf("calls at first: %v", got)
		}
		nodes[2].SetServing(greeterName, false)
		time.Sleep(time.Second)
		t.Logf("calls in the second after it stopped serving: %v", counts())
		time.Sleep(20 * time.Second)
		if got := counts(); got[1] != 0 || min(got[0], got[2]) < 1900 {
			t.Errorf("calls in the next 20 seconds: %v, want none at the second", got)
		}
		nodes[2].SetServing(greeterName, true)
		time.Sleep(time.Second)
		t.Logf("calls in the second after it serves again: %v", counts())
		time.Sleep(10 * time.Second)
		if got := counts(); got[1] < 600 {
			t.Errorf("calls in the next ten seconds: %v, want a third each", got)
		}
		made, errs := stop()
		if len(errs) > 0 {
			t.Errorf("%d of %d calls failed: %v", len(errs), made, errs[0])
		}
	})
}

func TestChoosing_NoneServingIsUnavailable(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		only := instance{deployment: "x"} // what greet asks for
		nodes := net.Start(2, func(i int, n *p2p.Node) {
			if i == 1 {
				pb.RegisterGreeterServiceServer(n, &only)
			}
		})
		mustGreet(t, nodes[0])
		nodes[1].SetServing(greeterName, false)
		time.Sleep(time.Second)
		if _, err := nodetest.Greet(t, nodes[0]); status.Code(err) != codes.Unavailable {
			t.Errorf("%v, want Unavailable", err)
		}
		nodes[1].SetServing(greeterName, true)
		mustGreet(t, nodes[0])
		if n := only.calls.Load(); n != 2 {
			t.Errorf("it got %d calls, want 2", n)
		}
	})
}

func TestChoosing_DeploymentsKeepApart(t *testing.T) {
	const calls = 1000
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		net.Latency(time.Millisecond)
		deployments := []string{"blue", "green"}
		instances := []*instance{{deployment: "blue"}, {deployment: "green"}, {deployment: "blue"}, {deployment: "green"}}
		caller := net.Start(1, nil)[0]
		for _, i := range instances {
			net.Start(1, func(_ int, n *p2p.Node) { pb.RegisterGreeterServiceServer(n, i) }, p2p.WithTags("deployment="+i.deployment, "region=eu"))
		}
		net.Converge(10*time.Second, greeterName)
		var wg sync.WaitGroup
		for _, d := range deployments {
			cc := caller.Service("", p2p.WithTag("deployment", d), p2p.WithTag("region", "eu"))
			for range 10 {
				wg.Go(func() {
					for range calls / 10 {
						if _, err := pb.NewGreeterServiceClient(cc).Greet(t.Context(), &pb.GreetRequest{Name: d}); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
		}
		wg.Wait()
		for i, d := range deployments {
			if a, b := instances[i].calls.Load(), instances[i+2].calls.Load(); a+b != calls || min(a, b) < calls*4/10 {
				t.Errorf("%s got %d and %d calls, want %d, half of them each", d, a, b, calls)
			}
		}
		nobody := caller.Service("", p2p.WithTag("deployment", "blue"), p2p.WithTag("region", "us"))
		if _, err := pb.NewGreeterServiceClient(nobody).Greet(t.Context(), &pb.GreetRequest{Name: "blue"}); status.Code(err) != codes.Unavailable {
			t.Errorf("nobody has both tags: %v, want Unavailable", err)
		}
	})
}
