package grpcstream

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// countingStream notes how many writes are under way at once.
type countingStream struct {
	network.Stream
	writing, most atomic.Int64
}

func (s *countingStream) Write(p []byte) (int, error) {
	n := s.writing.Add(1)
	defer s.writing.Add(-1)
	if n > s.most.Load() {
		s.most.Store(n)
	}
	runtime.Gosched()
	return len(p), nil
}

func (s *countingStream) Close() error { return nil }

// Two writes at once on one yamux stream would end the whole connection.
func TestConn_WritesOneAtATime(t *testing.T) {
	s := new(countingStream)
	c := connOver(s, Peer{}, time.Minute)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 50 {
				if _, err := c.Write(make([]byte, 3*writeChunk)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s.most.Load() != 1 {
		t.Errorf("%d writes at once", s.most.Load())
	}
	_ = c.Close()
}
