//go:build linux

package suite

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/grpcstream"
)

const (
	// beat is how often a load calls and sends: 50 times a second.
	beat = 20 * time.Millisecond
	// enough bounds a call of a load.
	enough = 10 * time.Second
)

// load is calls and a stream to a peer at a steady rate, until it is ended.
type load struct {
	end  context.CancelFunc
	work sync.WaitGroup

	mu       sync.Mutex
	begun    time.Time
	answers  []time.Time
	gots     []time.Time // when messages came
	report   Report
	received map[uint64]int
}

// Load is an order to begin a load.
type Load struct {
	Target string
	Calls  bool
	Stream bool
	Resume bool // the stream outlives its connection
}

// Report is what came of a load.
type Report struct {
	Lasted  time.Duration
	Calls   int
	Failed  int
	Errors  []string      // of the first that failed
	Slowest time.Duration // call
	Gap     time.Duration // the longest without an answer
	GapAt   time.Duration // since the begin of the load

	Sent, Lost, Repeated int           // messages of the stream
	StreamGap            time.Duration // the longest without a message
	StreamGapAt          time.Duration // since the begin of the load
	StreamErr            string
}

// Load begins a load.
func (o orders) Load(in Load, _ *struct{}) error {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{end: cancel, begun: time.Now(), received: map[uint64]int{}}
	o.p.load = l
	cc, service := o.p.target(in.Target, false)
	if in.Calls {
		l.work.Go(func() { l.calls(ctx, cc, "/"+service+"/Echo") })
	}
	if in.Stream {
		var opts []grpc.CallOption
		if in.Resume {
			opts = append(opts, grpcstream.Resumable())
		}
		l.work.Go(func() { l.stream(ctx, cc, "/"+service+"/Chat", opts...) })
	}
	return nil
}

// Unload ends the load, waits for the calls under way and reports.
func (o orders) Unload(_ struct{}, out *Report) error {
	l := o.p.load
	l.end()
	l.work.Wait()
	r := l.report
	r.Lasted = time.Since(l.begun)
	r.Gap, r.GapAt = longest(l.begun, l.answers)
	r.StreamGap, r.StreamGapAt = longest(l.begun, l.gots)
	for i := range uint64(r.Sent) {
		switch n := l.received[i]; {
		case n == 0:
			r.Lost++
		case n > 1:
			r.Repeated += n - 1
		}
	}
	*out = r
	return nil
}

// longest is the longest time between two of the moments, the begin included, and when it began, since then.
func longest(begin time.Time, moments []time.Time) (gap, at time.Duration) {
	slices.SortFunc(moments, time.Time.Compare)
	before := begin
	for _, m := range moments {
		if d := m.Sub(before); d > gap {
			gap, at = d, before.Sub(begin)
		}
		before = m
	}
	return gap, at
}

// calls makes calls, each at its time whatever became of those before.
func (l *load) calls(ctx context.Context, cc grpc.ClientConnInterface, method string) {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		l.work.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), enough)
			defer cancel()
			begin := time.Now()
			err := cc.Invoke(ctx, method, wrapperspb.Bytes([]byte("hello")), new(wrapperspb.BytesValue), grpcstream.Repeatable())
			now := time.Now()
			l.mu.Lock()
			defer l.mu.Unlock()
			l.report.Calls++
			l.report.Slowest = max(l.report.Slowest, now.Sub(begin))
			if err == nil {
				l.answers = append(l.answers, now)
				return
			}
			if l.report.Failed++; len(l.report.Errors) < 5 {
				l.report.Errors = append(l.report.Errors, fmt.Sprintf("at %v: %v", begin.Sub(l.begun).Round(time.Millisecond), err))
			}
		})
	}
}

// stream sends numbered messages on one stream and takes back each.
func (l *load) stream(ctx context.Context, cc grpc.ClientConnInterface, method string, opts ...grpc.CallOption) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stream, err := cc.NewStream(life, &chatDesc, method, opts...)
	if err != nil {
		l.broke(err)
		return
	}
	l.work.Go(func() {
		ticker := time.NewTicker(beat)
		defer ticker.Stop()
		for i := uint64(0); ctx.Err() == nil; i++ {
			if stream.SendMsg(wrapperspb.Bytes(binary.BigEndian.AppendUint64(nil, i))) != nil {
				return // the receiver knows why
			}
			l.mu.Lock()
			l.report.Sent++
			l.mu.Unlock()
			<-ticker.C
		}
		_ = stream.CloseSend()
	})
	for {
		in := new(wrapperspb.BytesValue)
		if err := stream.RecvMsg(in); err != nil {
			l.broke(err)
			return
		}
		if len(in.GetValue()) == 8 {
			l.mu.Lock()
			l.received[binary.BigEndian.Uint64(in.GetValue())]++
			l.gots = append(l.gots, time.Now())
			l.mu.Unlock()
		}
	}
}

func (l *load) broke(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err.Error() != "EOF" {
		l.report.StreamErr = fmt.Sprintf("after %v: %v", time.Since(l.begun).Round(time.Millisecond), err)
	}
}
