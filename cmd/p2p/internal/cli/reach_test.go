package cli

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/host/reach"
)

func TestReachRows_SayHowANodeIsReached(t *testing.T) {
	hub := &control.Relay{
		Peer: &control.Sender{Id: someID, Name: "hub"}, Connected: []string{"quic", "tcp"}, Rtt: durationpb.New(30 * time.Millisecond),
		Reserved: true, LimitData: 1 << 40, LimitDuration: durationpb.New(24 * time.Hour),
	}
	lost := &control.Relay{Peer: &control.Sender{Id: someID}, Since: timestamppb.Now(), LastError: "connection refused"}
	unknown, some := reach.MappingUnknown.String(), reach.MappingSomeNAT.String()
	for name, tc := range map[string]struct {
		in   *control.Reachability
		want []string
		not  string
	}{
		"public": {
			&control.Reachability{State: "public", UdpMapping: "no NAT", TcpMapping: "no NAT", Reached: []string{"/ip4/5.0.0.1/tcp/1"}, Relays: []*control.Relay{hub}},
			[]string{"reached directly", "nat no NAT", "reached at /ip4/5.0.0.1/tcp/1"},
			"unknown",
		},
		"relayed": {
			&control.Reachability{State: "private", UdpMapping: some, TcpMapping: some, Filtering: "unknown", Observed: []string{"/ip4/5.0.0.1/tcp/1"}, Relays: []*control.Relay{hub, lost}},
			[]string{
				"reached through 1 relay", "nat there is one", "seen at /ip4/5.0.0.1/tcp/1",
				"relays (hub)  " + someID + ", quic+tcp, round trip 30ms, carries up to 1.0 TiB and 24h0m0s a connection",
				someID + ", lost at ", ", connection refused",
			},
			"unknown",
		},
		"two kinds": {
			&control.Reachability{State: "private", UdpMapping: "symmetric NAT", TcpMapping: unknown, Filtering: "unknown", Relays: []*control.Relay{hub}},
			[]string{"nat UDP: symmetric NAT, TCP: unknown"},
			"",
		},
		"cut off":  {&control.Reachability{State: "unknown", UdpMapping: unknown, TcpMapping: unknown, Relays: []*control.Relay{lost}}, []string{"reached by nobody beyond"}, "nat"},
		"no relay": {&control.Reachability{State: "unknown", UdpMapping: unknown, TcpMapping: unknown}, []string{"there is no relay"}, "nat"},
	} {
		var lines []string
		for _, row := range reachOf(tc.in).rows() {
			lines = append(lines, strings.TrimSpace(strings.Join(row, " ")))
		}
		got := strings.Join(lines, "\n")
		for _, want := range tc.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in:\n%s", name, want, got)
			}
		}
		if tc.not != "" && strings.Contains(got, tc.not) {
			t.Errorf("%s: %q in:\n%s", name, tc.not, got)
		}
	}
	if rows := reachOf(nil).rows(); rows != nil {
		t.Errorf("a node on a LAN has %v", rows)
	}
}

func TestShareRelayed_IsWhatAPeerIsNamedBy(t *testing.T) {
	for relay, want := range map[string]string{
		otherID + "@relay.example.org:9388":           someID + "@" + otherID + "@relay.example.org:9388",
		"/ip4/192.0.2.1/udp/1/quic-v1/p2p/" + otherID: "/ip4/192.0.2.1/udp/1/quic-v1/p2p/" + otherID + "/p2p-circuit/p2p/" + someID,
	} {
		got := shareRelayed(someID, relay)
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err := control.CheckTarget(got); err != nil {
			t.Errorf("what is shared is no PEER: %v", err)
		}
	}
}

func TestVia_NamesTheRelay(t *testing.T) {
	for want, p := range map[string]*control.Peer{
		"tcp":                 {Path: "direct", Transport: "tcp"},
		"relay (hub) quic-v1": {Path: "relay", Transport: "quic-v1", Relay: &control.Sender{Id: someID, Name: "hub"}},
		"relay office tcp":    {Path: "relay", Transport: "tcp", Relay: &control.Sender{Id: someID, Name: "hub", PinnedName: "office"}},
		"relay …AJU5SA":       {Path: "relay", Relay: &control.Sender{Id: someID}},
		"relay … tcp":         {Path: "relay", Transport: "tcp", Relay: &control.Sender{}},
		"":                    {},
	} {
		if got := peerOf(p).via(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
