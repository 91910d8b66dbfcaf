package host_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
)

func TestRankDials(t *testing.T) {
	const step, onLoopback = host.DialStep, host.LoopbackStep
	type ranked struct {
		Addr  string
		Delay time.Duration
	}
	for _, tc := range []struct {
		name string
		in   []string
		want []ranked
	}{
		{"none", nil, nil},
		{"private: TCP first", []string{"/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.1/tcp/1"}, []ranked{
			{"/ip4/10.0.0.1/tcp/1", 0}, {"/ip4/10.0.0.1/udp/1/quic-v1", step},
		}},
		{"loopback: TCP first, IPv4 first", []string{"/ip6/::1/udp/1/quic-v1", "/ip6/::1/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1"}, []ranked{
			{"/ip4/127.0.0.1/tcp/1", 0},
			{"/ip6/::1/tcp/1", onLoopback},
			{"/ip4/127.0.0.1/udp/1/quic-v1", onLoopback},
			{"/ip6/::1/udp/1/quic-v1", 2 * onLoopback},
		}},
		{"loopback before private", []string{"/ip4/192.168.0.2/tcp/1", "/ip4/127.0.0.1/tcp/1"}, []ranked{
			{"/ip4/127.0.0.1/tcp/1", 0}, {"/ip4/192.168.0.2/tcp/1", step},
		}},
		{"QUIC alone does not wait", []string{"/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.2/udp/1/quic-v1"}, []ranked{
			{"/ip4/10.0.0.1/udp/1/quic-v1", 0}, {"/ip4/10.0.0.2/udp/1/quic-v1", step},
		}},
		{"public: QUIC first", []string{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1"}, []ranked{
			{"/ip4/192.0.2.1/udp/1/quic-v1", 0}, {"/ip4/192.0.2.1/tcp/1", 250 * time.Millisecond},
		}},
		{"WebSocket last", []string{"/ip4/192.0.2.1/tcp/443/ws", "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1"}, []ranked{
			{"/ip4/192.0.2.1/udp/1/quic-v1", 0}, {"/ip4/192.0.2.1/tcp/1", 250 * time.Millisecond}, {"/ip4/192.0.2.1/tcp/443/ws", 250*time.Millisecond + step},
		}},
		{"WebSocket alone does not wait", []string{"/dns/relay.example.org/tcp/443/wss", "/ip4/192.0.2.1/tcp/443/ws"}, []ranked{
			{"/dns/relay.example.org/tcp/443/wss", 0}, {"/ip4/192.0.2.1/tcp/443/ws", step},
		}},
		{"private beside public", []string{"/ip4/192.0.2.1/udp/1/quic-v1", "/ip4/10.0.0.1/tcp/1"}, []ranked{
			{"/ip4/10.0.0.1/tcp/1", 0}, {"/ip4/192.0.2.1/udp/1/quic-v1", 0},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var in []ma.Multiaddr
			for _, s := range tc.in {
				in = append(in, ma.StringCast(s))
			}
			var got []ranked
			for _, d := range host.RankDials(in) {
				got = append(got, ranked{d.Addr.String(), d.Delay})
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRankDials_RelayComesLast(t *testing.T) {
	relayed := ma.StringCast("/ip4/10.0.0.9/tcp/1/p2p/12D3KooWKdw5bCAeE6WcvdcWddRgrqEhghjuoyigFm8xg8ni8M5z/p2p-circuit")
	got := host.RankDials([]ma.Multiaddr{relayed, ma.StringCast("/ip4/192.0.2.1/udp/1/quic-v1")})
	if len(got) != 2 || !got[1].Addr.Equal(relayed) || got[1].Delay < 500*time.Millisecond {
		t.Errorf("%v", got)
	}
	if got := host.RankDials([]ma.Multiaddr{relayed, ma.StringCast("/ip4/10.0.0.1/tcp/1")}); got[1].Delay < 200*time.Millisecond {
		t.Errorf("beside a private address: %v", got)
	}
}

// Whatever the addresses are, each is dialed exactly once.
func TestRankDials_LosesNothing(t *testing.T) {
	var in []ma.Multiaddr
	for _, s := range []string{
		"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/2", "/ip4/10.0.0.2/tcp/1", "/ip4/10.0.0.3/tcp/1", "/ip4/10.0.0.4/tcp/1", "/dns/x/tcp/1",
		"/ip6/fd00::1/tcp/1", "/ip6/fe80::1/udp/1/quic-v1", "/ip4/1.1.1.1/udp/1/quic-v1", "/ip4/10.0.0.1/udp/1/webrtc-direct", "/ip4/10.0.0.1/tcp/1/ws",
	} {
		in = append(in, ma.StringCast(s))
	}
	seen := map[string]int{}
	for _, d := range host.RankDials(in) {
		seen[d.Addr.String()]++
		if d.Delay < 0 || d.Delay > 3*time.Second {
			t.Errorf("%s waits %v", d.Addr, d.Delay)
		}
	}
	if len(seen) != len(in) {
		t.Errorf("%d of %d: %v", len(seen), len(in), seen)
	}
}
