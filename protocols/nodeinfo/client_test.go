package nodeinfo

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lynn9388/p2p/internal/virtual"
)

func TestPing_MeasuresTheRoundTrip(t *testing.T) {
	d, err := Ping(t.Context(), serving(t, node{}))
	if err != nil || d <= 0 || d > timeout {
		t.Errorf("%v, %v", d, err)
	}
}

func TestPing_OtherBytesComeBack(t *testing.T) {
	for _, payload := range [][]byte{nil, make([]byte, pingSize)} {
		if _, err := Ping(t.Context(), lying(t, liar{payload: payload})); !errors.Is(err, ErrAnswer) {
			t.Errorf("%d bytes: %v, want ErrAnswer", len(payload), err)
		}
	}
}

func TestPing_GivesUpWithoutADeadline(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		cc, stop := dial(t, func(s *grpc.Server) { RegisterNodeInfoServiceServer(s, liar{delay: time.Hour}) })
		defer stop()
		start := time.Now()
		_, err := Ping(t.Context(), cc)
		if status.Code(err) != codes.DeadlineExceeded || !strings.HasPrefix(err.Error(), "nodeinfo: ping: ") {
			t.Errorf("error %v, want DeadlineExceeded", err)
		}
		if d := time.Since(start); d != timeout {
			t.Errorf("gave up after %v, want %v", d, timeout)
		}
	})
}

func TestCalls_KeepTheStatus(t *testing.T) {
	cc, stop := dial(t, func(*grpc.Server) {})
	defer stop()
	_, errPing := Ping(t.Context(), cc)
	_, errGet := Get(t.Context(), cc)
	_, errList := List(t.Context(), cc)
	_, errNames := Names(t.Context(), cc)
	for _, err := range []error{errPing, errGet, errList, errNames} {
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%v, want Unimplemented", err)
		}
	}
}

func TestGet_KeepsToTheLimits(t *testing.T) {
	got, err := Get(t.Context(), lying(t, liar{info: &InfoResponse{
		Name:      strings.Repeat("n", 2*MaxText),
		Version:   strings.Repeat("v", 2*MaxText),
		StartTime: &timestamppb.Timestamp{Seconds: 1 << 60},
		Addresses: append([]string{"", "garbage", "/ip4/1.2.3.4.5/tcp/1"},
			slices.Repeat([]string{"/ip4/192.0.2.1/tcp/1"}, 2*MaxAddrs)...),
	}}))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Name) != MaxText || len(got.Version) != MaxText || !got.Start.IsZero() || len(got.Addrs) != MaxAddrs-3 {
		t.Errorf("got %v", got)
	}
}

func TestGet_RefusesAHugeAnswer(t *testing.T) {
	_, err := Get(t.Context(), lying(t, liar{info: &InfoResponse{Name: strings.Repeat("n", maxAnswer)}}))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("error %v, want ResourceExhausted", err)
	}
}

func TestList_RefusesWhatBreaksTheProtocol(t *testing.T) {
	many := func(n int) (out []*Service) {
		for i := range n {
			out = append(out, &Service{Name: fmt.Sprintf("s%05d", i)})
		}
		return out
	}
	methods := func(n int) []*Method { return slices.Repeat([]*Method{{Name: "M"}}, n) }
	for name, services := range map[string][]*Service{
		"too many services":  many(MaxServices + 1),
		"too many methods":   {{Name: "a.A", Methods: methods(MaxMethods + 1)}},
		"no name":            {{}},
		"a long name":        {{Name: strings.Repeat("a", MaxText+1)}},
		"an escape sequence": {{Name: "a\x1b[2J"}},
		"a bidi override":    {{Name: "a\u202eb"}},
		"a slash":            {{Name: "a/b"}},
		"a malformed method": {{Name: "a.A", Methods: []*Method{{Name: "\n"}}}},
		"out of order":       {{Name: "b.B"}, {Name: "a.A"}},
		"one twice":          {{Name: "a.A"}, {Name: "a.A"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := List(t.Context(), lying(t, liar{services: services}))
			if !errors.Is(err, ErrAnswer) || got != nil {
				t.Fatalf("got %v, %v; want ErrAnswer", got, err)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("error %q is not fit for a terminal", err)
			}
		})
	}
}

func TestNames_LeavesTheSystemsOut(t *testing.T) {
	got, err := Names(t.Context(), serving(t, node{services: map[string]grpc.ServiceInfo{
		"grpc.health.v1.Health": {}, "grpc.reflection.v1.ServerReflection": {}, "p2p.nodeinfo.v1.NodeInfoService": {},
		"hello.Hello": {}, "p2px.X": {},
	}}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"hello.Hello", "p2px.X"}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzInfo(f *testing.F) {
	for _, res := range []*InfoResponse{
		{},
		{Name: "ü\u202e", Version: "v1", StartTime: timestamppb.New(time.Unix(1, 2)), Addresses: []string{"/ip4/192.0.2.1/tcp/1"}},
		{Addresses: []string{"", "/", "/ip4", "/p2p/x", "/ip6zone/a/ip6/::1"}},
	} {
		data, err := proto.Marshal(res)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var res InfoResponse
		if proto.Unmarshal(data, &res) != nil {
			return
		}
		got := info(&res)
		if len(got.Name) > MaxText || len(got.Version) > MaxText || len(got.Addrs) > MaxAddrs {
			t.Errorf("over a limit: %v", got)
		}
		for _, a := range got.Addrs {
			if a.String() == "" {
				t.Error("an empty address")
			}
		}
	})
}

func FuzzServices(f *testing.F) {
	for _, res := range []*ServicesResponse{
		{},
		{Services: []*Service{{Name: "a.A", Methods: []*Method{{Name: "M"}}}, {Name: "b.B"}}},
		{Services: []*Service{{Name: "a/b"}, {}}},
	} {
		data, err := proto.Marshal(res)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var res ServicesResponse
		if proto.Unmarshal(data, &res) != nil {
			return
		}
		if err := check(res.GetServices()); err != nil {
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("error %q is not fit for a terminal", err)
			}
			return
		}
		for _, s := range res.GetServices() {
			if !validName(s.GetName()) {
				t.Errorf("name %q", s.GetName())
			}
		}
	})
}
