package addr_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

const (
	someID  = "12D3KooWKdw5bCAeE6WcvdcWddRgrqEhghjuoyigFm8xg8ni8M5z"
	otherID = "12D3KooWRrNnNfVdUWi9vd6QMoGwhAbv8i7GEB1mjuV1hLLuFs1d"
)

func texts(addrs []ma.Multiaddr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

func TestParsePeer(t *testing.T) {
	for _, tc := range []struct {
		in    string
		addrs []string
	}{
		{someID, nil},
		{"/p2p/" + someID, nil},
		{someID + "@192.0.2.1:9388", []string{"/ip4/192.0.2.1/tcp/9388", "/ip4/192.0.2.1/udp/9388/quic-v1"}},
		{someID + "@[2001:db8::1]:9388", []string{"/ip6/2001:db8::1/tcp/9388", "/ip6/2001:db8::1/udp/9388/quic-v1"}},
		{someID + "@[::ffff:192.0.2.1]:1", []string{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1"}},
		{someID + "@localhost:9388", []string{"/ip4/127.0.0.1/tcp/9388", "/ip4/127.0.0.1/udp/9388/quic-v1"}},
		{someID + "@ws://relay.example.org:443", []string{"/dns/relay.example.org/tcp/443/ws"}},
		{someID + "@ws://[2001:db8::1]:443", []string{"/ip6/2001:db8::1/tcp/443/ws"}},
		{someID + "@wss://relay.example.org:443", []string{"/dns/relay.example.org/tcp/443/tls/ws"}},
		{someID + "@LocalHost:9388", []string{"/ip4/127.0.0.1/tcp/9388", "/ip4/127.0.0.1/udp/9388/quic-v1"}},
		{someID + "@node.example.org:9388", []string{"/dns/node.example.org/tcp/9388", "/dns/node.example.org/udp/9388/quic-v1"}},
		{someID + "@my_host:9388", []string{"/dns/my_host/tcp/9388", "/dns/my_host/udp/9388/quic-v1"}},
		{someID + "@[fe80::1%eth0]:9388", []string{"/ip6zone/eth0/ip6/fe80::1/tcp/9388", "/ip6zone/eth0/ip6/fe80::1/udp/9388/quic-v1"}},
		{someID + "@" + otherID + "@192.0.2.1:9388", []string{
			"/ip4/192.0.2.1/tcp/9388/p2p/" + otherID + "/p2p-circuit",
			"/ip4/192.0.2.1/udp/9388/quic-v1/p2p/" + otherID + "/p2p-circuit",
		}},
		{someID + "@" + otherID + "@node.example.org:1", []string{
			"/dns/node.example.org/tcp/1/p2p/" + otherID + "/p2p-circuit",
			"/dns/node.example.org/udp/1/quic-v1/p2p/" + otherID + "/p2p-circuit",
		}},
		{"/ip4/192.0.2.1/tcp/4001/p2p/" + otherID + "/p2p-circuit/p2p/" + someID, []string{"/ip4/192.0.2.1/tcp/4001/p2p/" + otherID + "/p2p-circuit"}},
		{"/ip4/192.0.2.1/tcp/4001/p2p/" + someID, []string{"/ip4/192.0.2.1/tcp/4001"}},
		{"/dnsaddr/example.org/p2p/" + someID, []string{"/dnsaddr/example.org"}},
	} {
		got, err := addr.ParsePeer(tc.in)
		if err != nil {
			t.Errorf("%s: %v", tc.in, err)
			continue
		}
		if got.ID.String() != someID {
			t.Errorf("%s: ID %s", tc.in, got.ID)
		}
		if diff := cmp.Diff(tc.addrs, texts(got.Addrs)); diff != "" {
			t.Errorf("%s: %s", tc.in, diff)
		}
	}
}

func TestParsePeer_Malformed(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "not a peer ID",
		"alice":                           "not a peer ID",
		someID[:30]:                       "not a peer ID",
		"alice@192.0.2.1:9388":            `"alice" is not a peer ID`,
		"@192.0.2.1:9388":                 "not a peer ID",
		someID + "@":                      "write host:port",
		someID + "@192.0.2.1":             "write host:port",
		someID + "@192.0.2.1:":            `port ""`,
		someID + "@192.0.2.1:0":           "port 0",
		someID + "@192.0.2.1:65536":       "port \"65536\"",
		someID + "@192.0.2.1:http":        "port \"http\"",
		someID + "@192.0.2.1:-1":          "port \"-1\"",
		someID + "@:9388":                 "host before the port is missing",
		someID + "@0.0.0.0:9388":          "names no host",
		someID + "@[::]:9388":             "names no host",
		someID + "@224.0.0.251:5353":      "names no host",
		someID + "@192.0.2.256:9388":      "neither an IP address nor a host name",
		someID + "@1234:9388":             "neither an IP address nor a host name",
		someID + "@wss://ws://a:1":        "one of ws:// and wss://",
		someID + "@http://a:1":            "write host:port",
		someID + "@ws://a":                "write host:port",
		someID + "@ws://:443":             "host before the port is missing",
		someID + "@a b:9388":              "neither an IP address nor a host name",
		someID + "@a/tcp:9388":            "neither an IP address nor a host name",
		someID + "@a..b:9388":             "neither an IP address nor a host name",
		someID + "@\x1b[2Jx:9388":         "@",
		someID + "@::1:9388":              "write host:port",
		someID + "@relay@192.0.2.1:9388":  `relay "relay" is not a peer ID`,
		someID + "@@192.0.2.1:9388":       `relay "" is not a peer ID`,
		someID + "@" + otherID + "@":      "write host:port",
		someID + "@" + otherID + "@a@b:1": "neither an IP address nor a host name",
		"/ip4/192.0.2.1/tcp/1":            "ends in /p2p/ID",
		"/ip4/192.0.2.1/tcp/1/p2p/alice":  "ends in /p2p/ID",
		"/nonsense":                       "ends in /p2p/ID",
		"/":                               "ends in /p2p/ID",
	} {
		got, err := addr.ParsePeer(in)
		if err == nil {
			t.Errorf("%q: %v", in, got)
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("%q: error %q, want one with %q", in, err, want)
		}
	}
}

func TestParseJoin(t *testing.T) {
	for _, tc := range []struct {
		in    string
		id    string
		addrs []string
	}{
		{"localhost:9388", "", []string{"/ip4/127.0.0.1/tcp/9388", "/ip4/127.0.0.1/udp/9388/quic-v1"}},
		{"node.local:9388", "", []string{"/dns/node.local/tcp/9388", "/dns/node.local/udp/9388/quic-v1"}},
		{"/ip4/192.0.2.1/tcp/4001", "", []string{"/ip4/192.0.2.1/tcp/4001"}},
		{"/dnsaddr/example.org", "", []string{"/dnsaddr/example.org"}},
		{"/ip4/192.0.2.1/tcp/4001/p2p/" + someID, someID, []string{"/ip4/192.0.2.1/tcp/4001"}},
		{someID + "@192.0.2.1:1", someID, []string{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1"}},
	} {
		got, err := addr.ParseJoin(tc.in)
		if err != nil {
			t.Errorf("%s: %v", tc.in, err)
			continue
		}
		if got.ID != "" && got.ID.String() != tc.id || got.ID == "" && tc.id != "" {
			t.Errorf("%s: ID %s", tc.in, got.ID)
		}
		if diff := cmp.Diff(tc.addrs, texts(got.Addrs)); diff != "" {
			t.Errorf("%s: %s", tc.in, diff)
		}
	}
	for _, in := range []string{"", someID, "/p2p/" + someID, ":9388", "host", "host:0", "/ip4/1/tcp/1", "alice@host:1", "0.0.0.0:1"} {
		if got, err := addr.ParseJoin(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestParseListen(t *testing.T) {
	pair := func(ip string, port string) []string {
		return []string{ip + "/tcp/" + port, ip + "/udp/" + port + "/quic-v1"}
	}
	for _, tc := range []struct {
		in   string
		want []string
	}{
		{"localhost:9388", append(pair("/ip4/127.0.0.1", "9388"), pair("/ip6/::1", "9388")...)},
		{"LOCALHOST:9388", append(pair("/ip4/127.0.0.1", "9388"), pair("/ip6/::1", "9388")...)},
		{":9388", append(pair("/ip4/0.0.0.0", "9388"), pair("/ip6/::", "9388")...)},
		{":0", append(pair("/ip4/0.0.0.0", "0"), pair("/ip6/::", "0")...)},
		{"0.0.0.0:1", pair("/ip4/0.0.0.0", "1")},
		{"[::]:1", pair("/ip6/::", "1")},
		{"192.0.2.1:9388", pair("/ip4/192.0.2.1", "9388")},
		{"[::1]:9388", pair("/ip6/::1", "9388")},
		{"[fe80::1%eth0]:9388", pair("/ip6zone/eth0/ip6/fe80::1", "9388")},
		{"/ip4/127.0.0.1/tcp/1", []string{"/ip4/127.0.0.1/tcp/1"}},
	} {
		got, err := addr.ParseListen(tc.in)
		if err != nil {
			t.Errorf("%s: %v", tc.in, err)
			continue
		}
		if diff := cmp.Diff(tc.want, texts(got)); diff != "" {
			t.Errorf("%s: %s", tc.in, diff)
		}
	}
	for in, want := range map[string]string{
		"":                                     "write host:port",
		"localhost":                            "write host:port",
		"9388":                                 "write host:port",
		"::1:9388":                             "write host:port",
		"localhost:http":                       "is not a number",
		"localhost:65536":                      "is not a number",
		"example.org:9388":                     "neither an IP address nor localhost",
		"/ip4/127.0.0.1/tcp/1/p2p/" + someID:   "leave out /p2p/",
		"/ip4/127.0.0.1/tcp/99999":             "listen address",
		"/ip4/127.0.0.1/tcp/1\x1b[2J/tcp/9388": "listen address",
	} {
		got, err := addr.ParseListen(in)
		if err == nil {
			t.Errorf("%q: %v", in, got)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %q, want one with %q", in, err, want)
		}
	}
}

func TestParseListenWebSocket(t *testing.T) {
	for in, want := range map[string][]string{
		":443":                        {"/ip4/0.0.0.0/tcp/443/ws", "/ip6/::/tcp/443/ws"},
		"192.0.2.1:80":                {"/ip4/192.0.2.1/tcp/80/ws"},
		"/ip4/192.0.2.1/tcp/443/ws":   {"/ip4/192.0.2.1/tcp/443/ws"},
		"/ip4/192.0.2.1/tcp/443/wss":  {"/ip4/192.0.2.1/tcp/443/wss"},
		"/ip4/192.0.2.1/tcp/443":      nil,
		"/ip4/192.0.2.1/udp/443/quic": nil,
		"443":                         nil,
		"example.org:443":             nil,
	} {
		got, err := addr.ParseListenWebSocket(in)
		if err == nil != (want != nil) {
			t.Errorf("%s: %v, error %v", in, got, err)
		}
		if diff := cmp.Diff(want, texts(got)); diff != "" && err == nil {
			t.Errorf("%s: %s", in, diff)
		}
	}
}

func TestParseAnnounce(t *testing.T) {
	for _, tc := range []struct {
		in   string
		host string
		port uint16
	}{
		{"192.0.2.1", "/ip4/192.0.2.1", 0},
		{"192.0.2.1:4001", "/ip4/192.0.2.1", 4001},
		{"2001:db8::1", "/ip6/2001:db8::1", 0},
		{"[2001:db8::1]", "/ip6/2001:db8::1", 0},
		{"[2001:db8::1]:4001", "/ip6/2001:db8::1", 4001},
		{"node.example.org", "/dns/node.example.org", 0},
		{"node.example.org:4001", "/dns/node.example.org", 4001},
		{"localhost", "/ip4/127.0.0.1", 0},
	} {
		got, port, err := addr.ParseAnnounce(tc.in)
		if err != nil || got.String() != tc.host || port != tc.port {
			t.Errorf("%s: %v, %d, %v", tc.in, got, port, err)
		}
	}
	for _, in := range []string{"", ":4001", "0.0.0.0", "[::]:1", "192.0.2.1:0", "192.0.2.1:x", "192.0.2.1:65536", "255.255.255.255", "a b", "/ip4/192.0.2.1", "224.0.0.1"} {
		if got, _, err := addr.ParseAnnounce(in); err == nil {
			t.Errorf("%q: %v", in, got)
		} else if !strings.HasPrefix(err.Error(), "announced address") {
			t.Errorf("%q: error %q", in, err)
		}
	}
}

func TestTransports(t *testing.T) {
	host := ma.StringCast("/ip4/192.0.2.1")
	for _, tc := range []struct {
		tcp, udp uint16
		want     []string
	}{
		{1, 2, []string{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/2/quic-v1"}},
		{1, 0, []string{"/ip4/192.0.2.1/tcp/1"}},
		{0, 65535, []string{"/ip4/192.0.2.1/udp/65535/quic-v1"}},
		{0, 0, nil},
	} {
		got, err := addr.Transports(host, tc.tcp, tc.udp)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(tc.want, texts(got)); diff != "" {
			t.Error(diff)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		someID, someID + "@192.0.2.1:9388", someID + "@" + otherID + "@192.0.2.1:9388", someID + "@[::1]:1", "localhost:9388", ":0", "[fe80::1%eth0]:9388",
		"/ip4/192.0.2.1/tcp/1/p2p/" + someID, "/dnsaddr/x", "a@b@c:1", "@", "[", "]:1", "/", "\x00:1", "192.0.2.1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if info, err := addr.ParsePeer(s); err == nil {
			if info.ID.Validate() != nil {
				t.Errorf("%q: no ID", s)
			}
			// What was read is read again from how it is shown.
			for _, a := range info.Addrs {
				again, err := addr.ParsePeer(a.String() + "/p2p/" + info.ID.String())
				if err != nil || again.ID != info.ID || len(again.Addrs) != 1 || !again.Addrs[0].Equal(a) {
					t.Errorf("%q: %s became %v, %v", s, a, again, err)
				}
			}
		}
		if info, err := addr.ParseJoin(s); err == nil && len(info.Addrs) == 0 {
			t.Errorf("%q: a place without an address", s)
		}
		if listen, err := addr.ParseListen(s); err == nil && len(listen) == 0 {
			t.Errorf("%q: nothing to listen at", s)
		}
		if host, port, err := addr.ParseAnnounce(s); err == nil {
			if addrs, err := addr.Transports(host, max(port, 1), max(port, 1)); err != nil || len(addrs) != 2 {
				t.Errorf("%q: %v, %v", s, addrs, err)
			}
		}
	})
}

func FuzzHostPort(f *testing.F) {
	for _, s := range []string{"/ip4/192.0.2.1/tcp/1", "/dns/x/udp/1/quic-v1", "/ip6zone/a/ip6/::1/tcp/1", "/p2p/" + someID} {
		f.Add(ma.StringCast(s).Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			return
		}
		addr.ScopeOf(a)
		hp, ok := addr.HostPort(a)
		if !ok {
			return
		}
		// What is shown can be written again. Scopes without a meaning, such as port 0, are no places.
		if _, err := addr.ParseJoin(hp); err != nil && !strings.Contains(err.Error(), "port 0") && !strings.Contains(err.Error(), "names no host") {
			t.Errorf("%s is shown as %q: %v", a, hp, err)
		}
	})
}

func TestParse_KeepsTheID(t *testing.T) {
	id, err := peer.Decode(someID)
	if err != nil {
		t.Fatal(err)
	}
	cid := peer.ToCid(id).String()
	if got, err := addr.ParsePeer(cid + "@localhost:1"); err != nil || got.ID != id {
		t.Errorf("as a CID: %v, %v", got, err)
	}
}
