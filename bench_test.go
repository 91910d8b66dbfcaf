package p2p_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// slice is how long each arm runs in one iteration. An iteration runs all arms, in a new order each time, so that a
// machine whose speed drifts treats them alike; -benchtime=20x gives 20 slices. The metrics are ratios to the arm
// grpc-tls of the same slice: median, and the quartiles.
const slice = 300 * time.Millisecond

// sample is what one slice of one arm measured.
type sample struct {
	rate float64       // calls or bytes a second
	p50  time.Duration // of a call; 0 where it is not measured
}

// compare runs the arms in slices and reports, a line for each arm, what it is worth beside the baseline, arms[0].
// The slices of all arms are run, interleaved, by the line of the baseline; with a filter that leaves that line out
// there is nothing to report.
func compare(b *testing.B, arms []arm, run func(ctx context.Context, a arm) (sample, error)) {
	b.Helper()
	samples := make(map[string][]sample)
	slice := func(b *testing.B, a arm) sample {
		b.Helper()
		s, err := run(b.Context(), a)
		if err != nil {
			b.Fatalf("%s: %v", a.name, err)
		}
		return s
	}
	for _, a := range arms {
		b.Run(a.name, func(b *testing.B) {
			if a.name == arms[0].name {
				clear(samples)
				for _, a := range arms { // connect and warm up
					slice(b, a)
				}
				for range b.N {
					for _, i := range rand.Perm(len(arms)) {
						samples[arms[i].name] = append(samples[arms[i].name], slice(b, arms[i]))
					}
				}
			}
			reportRatios(b, samples[arms[0].name], samples[a.name])
			b.ReportMetric(0, "ns/op")
		})
	}
}

func reportRatios(b *testing.B, base, own []sample) {
	b.Helper()
	if len(base) == 0 || len(own) != len(base) {
		b.Skip("run it together with the baseline")
	}
	var rate, p50, perSecond []float64
	for i, s := range own {
		perSecond = append(perSecond, s.rate)
		rate = append(rate, s.rate/base[i].rate)
		if base[i].p50 > 0 {
			p50 = append(p50, float64(s.p50)/float64(base[i].p50))
		}
	}
	report(b, "rate", rate)
	if p50 != nil {
		report(b, "p50", p50)
	}
	slices.Sort(perSecond)
	b.ReportMetric(perSecond[len(perSecond)/2], "/s")
}

// report shows the quartiles of values.
func report(b *testing.B, name string, values []float64) {
	b.Helper()
	slices.Sort(values)
	at := func(q float64) float64 { return values[int(q*float64(len(values)-1)+0.5)] }
	b.ReportMetric(at(0.25), name+"-q1")
	b.ReportMetric(at(0.50), name)
	b.ReportMetric(at(0.75), name+"-q3")
}

// BenchmarkUnary compares an echo.
func BenchmarkUnary(b *testing.B) {
	arms := benchArms(b)
	for _, size := range []int{64, 1024} {
		for _, callers := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("%dB/callers=%d", size, callers), func(b *testing.B) {
				compare(b, arms, func(ctx context.Context, a arm) (sample, error) { return unary(ctx, a, size, callers, slice) })
			})
		}
	}
}

// unary echoes size bytes from so many callers at once.
func unary(ctx context.Context, a arm, size, callers int, slice time.Duration) (sample, error) {
	var (
		wg    sync.WaitGroup
		times = make([][]time.Duration, callers)
		errs  = make(chan error, callers)
		until = time.Now().Add(slice)
	)
	for i := range callers {
		wg.Go(func() {
			call, end, err := caller(ctx, a, size)
			if err != nil {
				errs <- err
				return
			}
			defer end()
			for time.Now().Before(until) {
				began := time.Now()
				if err := call(); err != nil {
					errs <- err
					return
				}
				times[i] = append(times[i], time.Since(began))
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return sample{}, err
	default:
	}
	all := slices.Concat(times...)
	slices.Sort(all)
	return sample{rate: float64(len(all)) / slice.Seconds(), p50: all[len(all)/2]}, nil
}

// caller returns a function that echoes size bytes over the arm.
func caller(ctx context.Context, a arm, size int) (call func() error, end func(), err error) {
	if a.raw == nil {
		in, out := wrapperspb.Bytes(make([]byte, size)), new(wrapperspb.BytesValue)
		return func() error { return a.cc.Invoke(ctx, "/bench.Bench/Echo", in, out) }, func() {}, nil
	}
	s, err := a.raw(ctx)
	if err != nil {
		return nil, nil, err
	}
	buf := make([]byte, 4+size)
	binary.BigEndian.PutUint32(buf, uint32(size))
	return func() error {
		if _, err := s.Write(buf); err != nil {
			return err
		}
		_, err := io.ReadFull(s, buf)
		return err
	}, func() { _ = s.Reset() }, nil
}

// BenchmarkStream compares server streaming of 64 KiB messages; the raw arms echo them.
func BenchmarkStream(b *testing.B) {
	arms := benchArms(b)
	compare(b, grpcArms(arms), func(ctx context.Context, a arm) (sample, error) {
		ctx, cancel := context.WithTimeout(ctx, slice)
		defer cancel()
		n, err := down(ctx, a)
		return sample{rate: float64(n) / slice.Seconds()}, err
	})
}

func grpcArms(arms []arm) []arm {
	return slices.DeleteFunc(slices.Clone(arms), func(a arm) bool { return a.raw != nil })
}

// down receives 64 KiB messages until ctx ends, and returns how many bytes came.
func down(ctx context.Context, a arm) (int, error) {
	s, err := a.cc.NewStream(ctx, &benchDesc.Streams[0], "/bench.Bench/Down")
	if err != nil {
		return 0, err
	}
	if err := s.SendMsg(wrapperspb.UInt32(64 << 10)); err != nil {
		return 0, err
	}
	if err := s.CloseSend(); err != nil {
		return 0, err
	}
	total := 0
	for msg := new(wrapperspb.BytesValue); ; {
		if err := s.RecvMsg(msg); err != nil {
			if code := status.Code(err); code == codes.DeadlineExceeded || code == codes.Canceled {
				return total, nil
			}
			return total, err
		}
		total += len(msg.GetValue())
	}
}

// BenchmarkBesideBulk compares a small call while four bulk streams fill the same connection.
func BenchmarkBesideBulk(b *testing.B) {
	arms := benchArms(b)
	compare(b, grpcArms(arms), func(ctx context.Context, a arm) (sample, error) {
		bulk, cancel := context.WithCancel(ctx)
		defer cancel()
		var wg sync.WaitGroup
		var failed atomic.Pointer[error]
		for range 4 {
			wg.Go(func() {
				if _, err := down(bulk, a); err != nil {
					failed.Store(&err)
				}
			})
		}
		s, err := unary(ctx, a, 64, 1, 3*slice)
		cancel()
		wg.Wait()
		if e := failed.Load(); err == nil && e != nil {
			err = *e
		}
		return s, err
	})
}
