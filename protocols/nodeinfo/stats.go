package nodeinfo

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lynn9388/p2p/grpcstream"
)

// maxCode is the highest gRPC status code.
const maxCode = codes.Unauthenticated

func (s *server) Stats(context.Context, *StatsRequest) (*StatsResponse, error) {
	accounts := slices.SortedFunc(slices.Values(s.node.Stats()), func(a, b grpcstream.MethodStats) int {
		return cmp.Compare(a.Method, b.Method)
	})
	res := &StatsResponse{}
	for _, a := range accounts {
		if len(res.Methods) == MaxStats {
			break
		}
		if a.Method == "" || validMethod(a.Method) {
			res.Methods = append(res.Methods, methodStats(a))
		}
	}
	return res, nil
}

func methodStats(a grpcstream.MethodStats) *MethodStats {
	out := &MethodStats{
		Method: a.Method, Calls: a.Calls, BytesIn: a.BytesIn, BytesOut: a.BytesOut,
		Latency: &Latency{P50: durationpb.New(a.P50), P90: durationpb.New(a.P90), P99: durationpb.New(a.P99), Max: durationpb.New(a.Max)},
	}
	for code := codes.OK + 1; code <= maxCode; code++ {
		if n := a.Errors[code]; n > 0 {
			out.Errors = append(out.Errors, &ErrorCount{Code: uint32(code), Count: n})
		}
	}
	return out
}

// Stats returns the account that the node behind cc keeps of the calls it served, sorted by method: those of the
// methods that were called, and under the name "" those of all methods together that the node does not have. An answer
// over the limits or with a malformed name is refused with [ErrAnswer]. Without a deadline in ctx it gives up after
// 10 s.
func Stats(ctx context.Context, cc grpc.ClientConnInterface) ([]grpcstream.MethodStats, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	res, err := NewNodeInfoServiceClient(cc).Stats(ctx, &StatsRequest{}, options())
	if err != nil {
		return nil, fmt.Errorf("nodeinfo: stats: %w", err)
	}
	out, err := accounts(res.GetMethods())
	if err != nil {
		return nil, fmt.Errorf("nodeinfo: stats: %w: %w", ErrAnswer, err)
	}
	return out, nil
}

func accounts(methods []*MethodStats) ([]grpcstream.MethodStats, error) {
	if n := len(methods); n > MaxStats {
		return nil, fmt.Errorf("%d methods, at most %d are allowed", n, MaxStats)
	}
	var out []grpcstream.MethodStats
	for i, m := range methods {
		a := grpcstream.MethodStats{
			Method: m.GetMethod(), Calls: m.GetCalls(), BytesIn: m.GetBytesIn(), BytesOut: m.GetBytesOut(),
			P50: duration(m.GetLatency().GetP50()), P90: duration(m.GetLatency().GetP90()),
			P99: duration(m.GetLatency().GetP99()), Max: duration(m.GetLatency().GetMax()),
		}
		switch {
		case a.Method != "" && !validMethod(a.Method):
			return nil, fmt.Errorf("malformed method name %+q", cut(a.Method))
		case i > 0 && out[i-1].Method >= a.Method:
			return nil, fmt.Errorf("method %q is out of order or there twice", a.Method)
		}
		for _, e := range m.GetErrors() {
			code := codes.Code(e.GetCode())
			if _, twice := a.Errors[code]; twice || code == codes.OK || code > maxCode {
				return nil, fmt.Errorf("method %q has code %d, which is none or there twice", a.Method, e.GetCode())
			}
			if a.Errors == nil {
				a.Errors = make(map[codes.Code]uint64)
			}
			a.Errors[code] = e.GetCount()
		}
		out = append(out, a)
	}
	return out, nil
}

// duration is 0 for what is not set, malformed or negative.
func duration(d *durationpb.Duration) time.Duration {
	if !d.IsValid() {
		return 0
	}
	return max(0, d.AsDuration())
}

// validMethod tells whether s can be the full name of a method.
func validMethod(s string) bool {
	service, method, ok := strings.Cut(strings.TrimPrefix(s, "/"), "/")
	return ok && s[0] == '/' && validName(service) && validName(method)
}
