package main

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/workers/work"
	"github.com/lynn9388/p2p/p2ptest"
)

func register(_ int, n *p2p.Node) { pb.RegisterWorkerServiceServer(n, worker{}) }

func TestSpread_WorkersComeAndGo(t *testing.T) {
	const jobs = 500
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		net.Latency(50 * time.Millisecond)
		boss := net.Start(1, nil)[0]
		workers := net.Start(3, register)
		net.Converge(10 * time.Second)
		var done map[string]int
		var err error
		over := make(chan struct{})
		go func() {
			defer close(over)
			done, err = spread(t.Context(), boss, jobs)
		}()
		time.Sleep(time.Second) // of about three
		workers = append(workers, net.Start(1, register)...)
		if err := workers[0].Close(); err != nil {
			t.Error(err)
		}
		net.Kill(workers[1])
		<-over
		sum := 0
		for _, count := range done {
			sum += count
		}
		if err != nil || sum != jobs {
			t.Errorf("%d of %d jobs are done, error %v", sum, jobs, err)
		}
		for i, w := range workers {
			t.Logf("worker %d did %d", i, done[w.ID().String()])
			if done[w.ID().String()] == 0 {
				t.Errorf("worker %d did nothing", i)
			}
		}
	})
}

func TestSpread_EndsWithTheError(t *testing.T) {
	n := p2ptest.Start(t, 1, register)[0]
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := spread(t.Context(), n, 100); !errors.Is(err, p2p.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestGive_ReturnsTheErrorOfTheStart(t *testing.T) {
	n := p2ptest.Start(t, 1, nil)[0]
	if err := give(t.Context(), n, 1); !errors.Is(err, p2p.ErrStarted) {
		t.Errorf("got %v, want ErrStarted", err)
	}
}

func TestFactor(t *testing.T) {
	var w worker
	for n, want := range map[uint64][]uint64{
		0: nil, 1: nil, 2: {2}, 360: {2, 2, 2, 3, 3, 5}, 1_000_003: {1_000_003}, 1_000_003 * 1_000_033: {1_000_003, 1_000_033},
	} {
		res, err := w.Factor(t.Context(), &pb.FactorRequest{Number: n})
		if err != nil || !slices.Equal(res.GetPrimes(), want) {
			t.Errorf("%d: %v, %v", n, res.GetPrimes(), err)
		}
	}
}
