package nodeinfo

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
)

func TestPing_ReturnsThePayload(t *testing.T) {
	client := NewNodeInfoServiceClient(serving(t, node{}))
	for _, tt := range []struct {
		size int
		want codes.Code
	}{
		{0, codes.OK}, {MaxPayload, codes.OK}, {MaxPayload + 1, codes.InvalidArgument},
	} {
		sent := make([]byte, tt.size)
		for i := range sent {
			sent[i] = byte(i)
		}
		res, err := client.Ping(t.Context(), &PingRequest{Payload: sent})
		if status.Code(err) != tt.want {
			t.Errorf("%d bytes: %v, want %v", tt.size, err, tt.want)
		}
		if err == nil && string(res.GetPayload()) != string(sent) {
			t.Errorf("%d bytes: came back changed", tt.size)
		}
	}
}

func TestInfo_AnswersFromTheNode(t *testing.T) {
	want := Info{
		Name:    "büro",
		Version: "v0.1.0",
		Start:   time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		Addrs:   []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.1/tcp/9388"), ma.StringCast("/ip6/::1/udp/9388/quic-v1")},
	}
	got, err := Get(t.Context(), serving(t, node{info: want}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestInfo_ANodeThatSaysNothing(t *testing.T) {
	got, err := Get(t.Context(), serving(t, node{}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Info{}, got); diff != "" {
		t.Error(diff)
	}
}

func TestInfo_CutsWhatIsTooLong(t *testing.T) {
	n := node{info: Info{Name: strings.Repeat("ü", MaxText), Version: "v\xff1"}}
	for i := range 2 * MaxAddrs {
		n.info.Addrs = append(n.info.Addrs, ma.StringCast(fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", i+1)))
	}
	res, err := NewNodeInfoServiceClient(serving(t, n)).Info(t.Context(), &InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := res.GetName(); len(got) != MaxText || !utf8.ValidString(got) {
		t.Errorf("name of %d bytes, valid %v", len(got), utf8.ValidString(got))
	}
	if got := res.GetVersion(); got != "v1" {
		t.Errorf("version %q", got)
	}
	if got := len(res.GetAddresses()); got != MaxAddrs {
		t.Errorf("%d addresses", got)
	}
}

func TestServices_AreSortedAndComplete(t *testing.T) {
	n := node{services: map[string]grpc.ServiceInfo{
		"z.Last":  {},
		"a.First": {Methods: []grpc.MethodInfo{{Name: "Up", IsClientStream: true}, {Name: "Down", IsServerStream: true}}},
		"bad/one": {},
		"bad two": {},
		"":        {},
	}}
	got, err := List(t.Context(), serving(t, n))
	if err != nil {
		t.Fatal(err)
	}
	want := []*Service{
		{Name: "a.First", Methods: []*Method{{Name: "Down", ServerStreaming: true}, {Name: "Up", ClientStreaming: true}}},
		{Name: "z.Last"},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestServices_AreLimited(t *testing.T) {
	n := node{services: map[string]grpc.ServiceInfo{}}
	for i := range MaxServices + 10 {
		n.services[fmt.Sprintf("s%d.S", i)] = grpc.ServiceInfo{}
	}
	many := make([]grpc.MethodInfo, MaxMethods+10)
	for i := range many {
		many[i].Name = fmt.Sprintf("M%d", i)
	}
	n.services["a.Many"] = grpc.ServiceInfo{Methods: many}
	got, err := List(t.Context(), serving(t, n))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != MaxServices || len(got[0].GetMethods()) != MaxMethods {
		t.Errorf("%d services, the first with %d methods", len(got), len(got[0].GetMethods()))
	}
}

// ofServer is a Node that serves what a server has registered.
type ofServer struct {
	node
	srv *grpc.Server
}

func (n ofServer) GetServiceInfo() map[string]grpc.ServiceInfo { return n.srv.GetServiceInfo() }

func TestServices_OfARealServer(t *testing.T) {
	cc, stop := dial(t, func(s *grpc.Server) {
		Register(s, ofServer{srv: s})
	})
	defer stop()
	got, err := List(t.Context(), cc)
	if err != nil {
		t.Fatal(err)
	}
	want := []*Service{{
		Name:    NodeInfoService_ServiceDesc.ServiceName,
		Methods: []*Method{{Name: "Info"}, {Name: "Ping"}, {Name: "Services"}, {Name: "Stats"}, {Name: "Watch", ServerStreaming: true}},
	}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}
