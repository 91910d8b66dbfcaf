package nodeinfo

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lynn9388/p2p/grpcstream"
)

func TestStats_ArriveAsTheyAre(t *testing.T) {
	want := []grpcstream.MethodStats{
		{Calls: 3, Errors: map[codes.Code]uint64{codes.Unimplemented: 3}},
		{
			Method: "/a.A/Up", Calls: 100, Errors: map[codes.Code]uint64{codes.Canceled: 1, codes.Unauthenticated: 2},
			P50: time.Millisecond, P90: time.Second, P99: time.Minute, Max: time.Hour, BytesIn: 1 << 40, BytesOut: 5,
		},
		{Method: "/b.B/Down", Calls: 1},
	}
	sent := slices.Clone(want)
	slices.Reverse(sent)
	got, err := Stats(t.Context(), serving(t, node{stats: sent}))
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestStats_ANodeThatWasNotCalled(t *testing.T) {
	if got, err := Stats(t.Context(), serving(t, node{})); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestStats_AreLimited(t *testing.T) {
	n := node{stats: []grpcstream.MethodStats{{Method: "no/method"}, {Method: "/a"}, {Method: "/a/b/c"}, {Method: "/ /x"}}}
	for i := range MaxStats + 10 {
		n.stats = append(n.stats, grpcstream.MethodStats{Method: fmt.Sprintf("/%s.S/%d", strings.Repeat("s", 200), i), Calls: 1})
	}
	got, err := Stats(t.Context(), serving(t, n))
	if err != nil || len(got) != MaxStats {
		t.Errorf("%d methods, %v", len(got), err)
	}
}

func TestStats_RefusesWhatBreaksTheProtocol(t *testing.T) {
	many := make([]*MethodStats, MaxStats+1)
	for i := range many {
		many[i] = &MethodStats{Method: fmt.Sprintf("/s/m%05d", i)}
	}
	for name, methods := range map[string][]*MethodStats{
		"too many":           many,
		"no slash":           {{Method: "a"}},
		"an escape sequence": {{Method: "/a/\x1b[2J"}},
		"a bidi override":    {{Method: "/a\u202e/b"}},
		"out of order":       {{Method: "/b/B"}, {Method: "/a/A"}},
		"one twice":          {{}, {}},
		"an OK error":        {{Errors: []*ErrorCount{{Code: 0}}}},
		"no such code":       {{Errors: []*ErrorCount{{Code: 17}}}},
		"a code twice":       {{Errors: []*ErrorCount{{Code: 1}, {Code: 1}}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Stats(t.Context(), lying(t, liar{stats: methods}))
			if !errors.Is(err, ErrAnswer) || got != nil {
				t.Fatalf("got %v, %v; want ErrAnswer", got, err)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("error %q is not fit for a terminal", err)
			}
		})
	}
}

func TestStats_OddDurationsAreNone(t *testing.T) {
	got, err := Stats(t.Context(), lying(t, liar{stats: []*MethodStats{{Latency: &Latency{
		P50: &durationpb.Duration{Seconds: -1}, P90: &durationpb.Duration{Nanos: -1e9}, P99: &durationpb.Duration{Seconds: 1 << 60},
	}}}}))
	if diff := cmp.Diff([]grpcstream.MethodStats{{}}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func FuzzStats(f *testing.F) {
	for _, res := range []*StatsResponse{
		{},
		{Methods: []*MethodStats{{}, {Method: "/a.A/M", Calls: 2, Errors: []*ErrorCount{{Code: 16, Count: 1}}, Latency: &Latency{Max: durationpb.New(1)}}}},
		{Methods: []*MethodStats{{Method: "//"}, {Errors: []*ErrorCount{{Code: 99}}}}},
	} {
		data, err := proto.Marshal(res)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var res StatsResponse
		if proto.Unmarshal(data, &res) != nil {
			return
		}
		got, err := accounts(res.GetMethods())
		if err != nil {
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("error %q is not fit for a terminal", err)
			}
			return
		}
		for _, a := range got {
			if a.Method != "" && !validMethod(a.Method) || min(a.P50, a.P90, a.P99, a.Max) < 0 {
				t.Errorf("%+v", a)
			}
		}
	})
}
