package doctor

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/discovery/mdns"
	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/reach"
	"github.com/lynn9388/p2p/internal/sockets"
	"github.com/lynn9388/p2p/protocols/pathinfo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// want tells that a check is not what it is to be: its outcome, words of its text and, unless empty, of its remedy.
func want(t *testing.T, what string, c Check, s Status, text, remedy string) {
	t.Helper()
	if c.Status != s || !strings.Contains(c.Text, text) || !strings.Contains(c.Remedy, remedy) || remedy == "" && s == Fail {
		t.Errorf("%s: %+v, want %s with %q, and to do %q", what, c, s, text, remedy)
	}
	if strings.Contains(c.Text+c.Remedy, "\n") {
		t.Errorf("%s: more than one line: %q", what, c)
	}
}

func addrs(in ...string) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, s := range in {
		out = append(out, ma.StringCast(s))
	}
	return out
}

func TestClock(t *testing.T) {
	now := time.Date(2030, time.May, 1, 12, 0, 0, 0, time.UTC)
	o := func(ahead ...time.Duration) (out []Offset) {
		for i, a := range ahead {
			out = append(out, Offset{Peer: string(rune('a' + i)), Ahead: a})
		}
		return out
	}
	for _, tc := range []struct {
		what         string
		now          time.Time
		others       []Offset
		want         Status
		text, remedy string
	}{
		{"never set", time.Date(1970, time.January, 1, 0, 0, 0, 0, time.UTC), nil, Fail, "never set", "NTP"},
		{"alone", now, nil, Unknown, "nobody to compare", ""},
		{"right", now, o(0, time.Second), Pass, "the same", ""},
		{"one other is wrong", now, o(0, time.Second, time.Hour), Pass, "c is 1h0m0s ahead", ""},
		{"one of two is wrong", now, o(-2 * time.Minute), Fail, "a is 2m0s behind this one: one of the two", "NTP"},
		{"a bit", now, o(20*time.Second, 21*time.Second), Warn, "it is wrong", "NTP"},
		{"wrong", now, o(time.Hour, time.Hour), Fail, "it is wrong", "NTP"},
		{"wrong, and another one, too", now, o(time.Hour, 9*time.Hour, time.Hour), Fail, "is 1h0m0s ahead of this one, and others agree", "NTP"},
		{"one differs, one does not", now, o(0, -time.Hour), Fail, "b is 1h0m0s behind this one: one of the two", "NTP"},
		{"all differ", now, o(time.Hour, -2*time.Hour, 5*time.Hour), Fail, "a is 1h0m0s ahead of this one: one of the two", "NTP"},
	} {
		want(t, tc.what, Clock(tc.now, tc.others), tc.want, tc.text, tc.remedy)
	}
}

func TestHome(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	want(t, "no home", Home(dir), Unknown, dir, "p2p run")
	h, err := host.OpenHome(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.Identity(); err != nil {
		t.Fatal(err)
	}
	want(t, "a home", Home(dir), Pass, "nobody else can read it", "")
	if runtime.GOOS == "windows" {
		return
	}
	if err := os.Chmod(filepath.Join(dir, "identity.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	want(t, "a key that others can read", Home(dir), Fail, "chmod 600", "new identity")
}

func TestLimits(t *testing.T) {
	for _, c := range (Limits{}).Judge() {
		t.Errorf("nothing is known, and judged: %+v", c)
	}
	for what, tc := range map[string]struct {
		in           Limits
		want         Status
		text, remedy string
	}{
		"files":            {Limits{Files: 20, MaxFiles: 20000}, Pass, "20 open", ""},
		"few files":        {Limits{Files: 20, MaxFiles: 256}, Warn, "at most 256", "ulimit"},
		"files near":       {Limits{Files: 900, MaxFiles: 1024}, Fail, "900 open", "ulimit"},
		"connections":      {Limits{Connections: 19, MaxConnections: 192}, Pass, "19", ""},
		"connections near": {Limits{Connections: 193, MaxConnections: 192}, Warn, "193", "relays"},
		"buffer":           {Limits{UDPBuffer: 8 << 20}, Pass, "8192 KiB", ""},
		"small buffer":     {Limits{UDPBuffer: 212992}, Warn, "208 KiB", "sysctl"},
	} {
		checks := tc.in.Judge()
		if len(checks) != 1 {
			t.Fatalf("%s: %v", what, checks)
		}
		want(t, what, checks[0], tc.want, tc.text, tc.remedy)
	}
}

func TestPorts(t *testing.T) {
	listen := addrs("/ip4/0.0.0.0/tcp/9388", "/ip4/0.0.0.0/udp/9388/quic-v1", "/ip6/::/tcp/9388", "/ip4/0.0.0.0/tcp/443/ws", "/p2p-circuit")
	open := func(in ...string) (out []sockets.Socket) {
		for _, s := range in {
			network, at, _ := strings.Cut(s, " ")
			out = append(out, sockets.Socket{Network: network, Addr: netip.MustParseAddrPort(at)})
		}
		return out
	}
	all := []string{"tcp 0.0.0.0:9388", "udp 0.0.0.0:9388", "tcp 0.0.0.0:443", "udp 0.0.0.0:5353", "udp 0.0.0.0:41234"}
	want(t, "as it is to be", Ports(listen, true, open(all...), nil), Pass, "tcp 443, tcp 9388, udp 9388, udp 5353, and no others", "")
	want(t, "one is missing", Ports(listen, true, open(all[1:]...), nil), Fail, "tcp 9388 is not open", "restart")
	want(t, "one too many", Ports(listen, true, open(append(all, "tcp 127.0.0.1:6060")...), nil), Warn, "also tcp 127.0.0.1:6060", "ss")
	want(t, "multicast DNS of somebody else", Ports(listen, false, open(all...), nil), Warn, "also udp 0.0.0.0:5353", "ss")
	want(t, "another system", Ports(listen, false, nil, sockets.ErrUnsupported), Unknown, "tcp 9388", "")
	want(t, "not readable", Ports(listen, false, nil, errors.New("no /proc")), Unknown, "no /proc", "")
}

func TestLinks(t *testing.T) {
	lan := host.Interface{Name: "eth0", Flags: net.FlagUp, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}
	want(t, "one", Interfaces([]host.Interface{lan}, nil), Pass, "eth0 (192.0.2.1)", "")
	want(t, "none", Interfaces([]host.Interface{{Name: "lo", Flags: net.FlagUp | net.FlagLoopback, Addrs: lan.Addrs}, {Name: "docker0", Addrs: lan.Addrs}}, nil), Fail, "none is up", "cable")
	want(t, "no answer", Interfaces(nil, errors.New("no such thing")), Unknown, "no such thing", "")
	used := []mdns.InterfaceState{{Name: "eth0", Used: true, Looped: true}}
	for what, tc := range map[string]struct {
		in   mdns.State
		want Status
		todo string
	}{
		"found":      {mdns.State{Reason: mdns.Found, Peers: 2}, Pass, ""},
		"silent":     {mdns.State{Reason: mdns.Silent, Interfaces: used}, Pass, ""},
		"not heard":  {mdns.State{Reason: mdns.Silent}, Warn, ""},
		"blocked":    {mdns.State{Reason: mdns.NotLooped}, Fail, "addresses"},
		"refused":    {mdns.State{Reason: mdns.Refused}, Fail, "addresses"},
		"container":  {mdns.State{Reason: mdns.Container}, Warn, ""},
		"too early":  {mdns.State{Reason: mdns.Starting}, Unknown, ""},
		"loopback":   {mdns.State{Reason: mdns.LocalOnly}, Warn, ""},
		"not known":  {mdns.State{Reason: "new"}, Unknown, ""},
		"no network": {mdns.State{Reason: mdns.NoInterface}, Fail, "addresses"},
	} {
		want(t, what, Multicast(tc.in), tc.want, "", tc.todo)
	}
}

const (
	idA = "12D3KooWRrNnNfVdUWi9vd6QMoGwhAbv8i7GEB1mjuV1hLLuFs1d"
	idB = "12D3KooWKdw5bCAeE6WcvdcWddRgrqEhghjuoyigFm8xg8ni8M5z"
)

func id(t *testing.T, s string) peer.ID {
	t.Helper()
	p, err := peer.Decode(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// door is a relay, and who answers there over TCP and over UDP.
func door(t *testing.T, place, tcp, udp string) Door {
	t.Helper()
	d := Door{Place: place, ID: id(t, idA), Knocks: []Knock{{Addr: ma.StringCast("/ip4/192.0.2.1/tcp/1")}, {Addr: ma.StringCast("/ip4/192.0.2.1/udp/1/quic-v1")}}}
	for i, who := range []string{tcp, udp} {
		if who == "" {
			d.Knocks[i].Err = errors.New("host: identify: no answer")
			continue
		}
		d.Knocks[i].Answered, d.Knocks[i].Took = id(t, who), 30*time.Millisecond
	}
	return d
}

func TestRelays(t *testing.T) {
	of := func(r reach.RelayStatus) reach.Status {
		r.ID = id(t, idA)
		return reach.Status{Relays: []reach.RelayStatus{r}}
	}
	on := []string{"tcp", "quic"}
	for _, tc := range []struct {
		what         string
		door         Door
		status       reach.Status
		want         Status
		text, remedy string
	}{
		{"without a node", door(t, "r", idA, idA), reach.Status{}, Pass, "TCP answers in 30ms, UDP answers in 30ms", ""},
		{"it carries", door(t, "r", idA, ""), of(reach.RelayStatus{Connected: on, Reserved: true, LimitData: 1 << 40, LimitDuration: 24 * time.Hour}), Pass, "UDP: no answer, and carries for this node: 1 TiB for 24h0m0s each", ""},
		{"for a public node", door(t, "r", idA, idA), of(reach.RelayStatus{Connected: on}), Pass, "nothing has to be carried", ""},
		{"no relay", door(t, "r", idA, idA), of(reach.RelayStatus{Connected: on, LastError: "it is no relay"}), Fail, "it is no relay", "--profile relay"},
		{"not allowed", door(t, "r", idA, idA), of(reach.RelayStatus{LastError: "it ends the connection"}), Fail, "not connected", "allow list"},
		{"down", door(t, "r", "", ""), reach.Status{}, Fail, "nobody answers: TCP: no answer, UDP: no answer", "runs"},
		{"wrong ID", door(t, "r", idB, idB), reach.Status{}, Fail, "another peer answers there: " + idB, "name it by this ID"},
		{"half wrong", door(t, "r", idB, idA), reach.Status{}, Pass, "r", ""},
	} {
		want(t, tc.what, relay(tc.door, tc.status), tc.want, tc.text, tc.remedy)
	}
	if got := Relays(nil, reach.Status{}); len(got) != 1 || got[0].Status != Unknown {
		t.Errorf("no relays: %+v", got)
	}
}

func TestUDP(t *testing.T) {
	both, shut, down := door(t, "a", idA, idA), door(t, "b", idA, ""), door(t, "c", "", "")
	want(t, "nobody", UDP(nil), Unknown, "nobody to ask", "--join")
	want(t, "all down", UDP([]Door{down}), Unknown, "nobody to ask", "--join")
	want(t, "open", UDP([]Door{both, both}), Pass, "2 relays", "")
	want(t, "open, one down", UDP([]Door{both, down}), Pass, "1 relay", "")
	want(t, "shut at one", UDP([]Door{both, shut}), Warn, "at b only TCP", "firewall of b")
	want(t, "shut at the only one", UDP([]Door{shut}), Warn, "here or there", "let UDP in")
	want(t, "shut here", UDP([]Door{shut, shut}), Fail, "on this side", "let UDP out")
}

func TestNAT(t *testing.T) {
	st := func(udp, tcp reach.Mapping, relays int) reach.Status {
		out := reach.Status{Reachability: network.ReachabilityPrivate, UDP: udp, TCP: tcp, Mapping: max(udp, tcp), Filtering: reach.FilteringPort}
		for range relays {
			out.Relays = append(out.Relays, reach.RelayStatus{Connected: []string{"tcp"}})
		}
		return out
	}
	for _, tc := range []struct {
		what         string
		in           reach.Status
		want         Status
		text, remedy string
	}{
		{"public", reach.Status{Reachability: network.ReachabilityPublic, Reached: addrs("/ip4/5.0.0.1/tcp/1", "/ip4/5.0.0.1/udp/1/quic-v1")}, Pass, "a relay came in at 5.0.0.1:1", ""},
		{"independent", st(reach.MappingIndependent, reach.MappingIndependent, 2), Pass, "endpoint-independent NAT; closed to ports", ""},
		{"symmetric", st(reach.MappingSymmetric, reach.MappingSymmetric, 2), Warn, "symmetric NAT", "map a port"},
		{"symmetric for one", st(reach.MappingSymmetric, reach.MappingIndependent, 2), Warn, "UDP: symmetric NAT, TCP: endpoint-independent NAT", "map a port"},
		{"firewall", st(reach.MappingNone, reach.MappingNone, 1), Pass, "a firewall", ""},
		{"one relay", st(reach.MappingSomeNAT, reach.MappingSomeNAT, 1), Unknown, "by one relay", "second relay"},
		{"two relays, not yet", st(reach.MappingSomeNAT, reach.MappingSomeNAT, 2), Unknown, "not told yet", ""},
		{"nobody has told", reach.Status{}, Unknown, "no relay has told", ""},
	} {
		want(t, tc.what, NAT(tc.in), tc.want, tc.text, tc.remedy)
	}
}

func TestMapping(t *testing.T) {
	lan := host.Interface{Addrs: []netip.Prefix{netip.MustParsePrefix("5.0.0.2/24")}}
	at := mapped(addrs("/ip4/5.0.0.1/tcp/1", "/ip4/5.0.0.2/tcp/1", "/ip4/192.168.0.1/tcp/1", "/ip4/5.0.0.1/udp/1/quic-v1"), []host.Interface{lan})
	want(t, "mapped", Mapping(true, at), Pass, "lets others in at 5.0.0.1:1", "")
	want(t, "none", Mapping(true, nil), Unknown, "maps no port", "")
	want(t, "off", Mapping(false, nil), Unknown, "not asked", "")
}

func TestAnnounced(t *testing.T) {
	private, public := addrs("/ip4/192.168.1.2/tcp/1"), addrs("/ip4/192.168.1.2/tcp/1", "/ip4/5.0.0.1/tcp/1")
	circuit := append(addrs("/ip4/5.0.0.1/tcp/1/p2p/"+idA+"/p2p-circuit"), private...)
	want(t, "public", Announced(public, nil, true), Pass, "5.0.0.1:1", "")
	want(t, "relayed", Announced(circuit, nil, false), Pass, "through its relays", "")
	want(t, "a node of the LAN", Announced(private, nil, false), Pass, "this network only", "")
	want(t, "a relay that nobody reaches", Announced(private, nil, true), Fail, "private addresses only", "--announce")
	want(t, "announced", Announced(private, []string{"relay.example.org", "5.0.0.1"}, true), Pass, "relay.example.org, 5.0.0.1", "")
	want(t, "private announced", Announced(private, []string{"10.0.0.1:9388"}, true), Warn, "10.0.0.1:9388 is no public", "--announce")
}

func TestReached(t *testing.T) {
	view := func(tcp, udp string) pathinfo.View {
		return pathinfo.View{Dialed: []pathinfo.Met{
			{Addr: "/ip4/5.0.0.1/tcp/1", Err: tcp}, {Addr: "/ip4/5.0.0.1/udp/1/quic-v1", Err: udp}, {Addr: "/ip4/127.0.0.1/tcp/1"}, {Addr: "nonsense"},
		}}
	}
	both, tcp, udp, none := view("", ""), view("", "no answer"), view("no answer", ""), view("x", "x")
	want(t, "nobody to ask", Reached(nil), Unknown, "nobody", "join a node")
	want(t, "open", Reached([]pathinfo.View{both, tcp}), Pass, "2 nodes get to it over TCP, 1 over UDP", "")
	want(t, "closed", Reached([]pathinfo.View{none, none}), Fail, "none of the 2 nodes", "--announce")
	want(t, "UDP closed", Reached([]pathinfo.View{tcp, tcp, none}), Fail, "UDP port is closed", "let UDP in")
	want(t, "UDP closed to one", Reached([]pathinfo.View{tcp}), Warn, "here or there", "let UDP in")
	want(t, "TCP closed", Reached([]pathinfo.View{udp}), Warn, "TCP port is closed", "let TCP in")
}

func TestPeer(t *testing.T) {
	rtt := 30 * time.Millisecond
	want(t, "it answers", calls(rtt, nil, p2p.PeerInfo{}), Pass, "30ms", "")
	want(t, "it refuses", calls(0, status.Error(codes.PermissionDenied, "you may not"), p2p.PeerInfo{}), Fail, "you may not", "allow list")
	want(t, "it is gone", calls(0, errors.New("gone\x1b"), p2p.PeerInfo{LastError: "no route"}), Fail, `gone\x1b`, "no route")
	want(t, "it is not known", calls(0, errors.New("gone"), p2p.PeerInfo{}), Fail, "gone", "same relay")

	want(t, "open", fromHere(door(t, "", idA, "")), Pass, "192.0.2.1:1 over TCP, 192.0.2.1:1 over UDP (no answer)", "")
	want(t, "shut", fromHere(door(t, "", "", "")), Warn, "nobody answers", "usual")
	want(t, "somebody else", fromHere(door(t, "", idB, "")), Warn, "another peer answers, "+idB, "usual")
	want(t, "no address", fromHere(Door{}), Unknown, "through a relay", "")

	want(t, "open here", fromThere(pathinfo.View{SeenAt: "/ip4/5.0.0.1/tcp/1", Dialed: []pathinfo.Met{{Addr: "/ip4/5.0.0.1/tcp/1"}}}), Pass, "it gets to 5.0.0.1:1 over TCP", "")
	want(t, "shut here", fromThere(pathinfo.View{Relay: "r", Dialed: []pathinfo.Met{{Addr: "x\x1b", Err: "no\nanswer"}}}), Warn, `through the relay r, and does not get to this node's addresses: x\x1b (no\nanswer)`, "usual")
	want(t, "nothing to dial", fromThere(pathinfo.View{}), Unknown, "does not say where", "")

	want(t, "direct", path(p2p.PeerInfo{Path: "direct", Transport: "tcp"}, pathinfo.View{}), Pass, "direct, over tcp", "")
	want(t, "relayed", path(p2p.PeerInfo{Path: "relay", Relay: id(t, idA), NotDirect: "no answer"}, pathinfo.View{UDPMapping: "symmetric NAT"}), Warn, idA+": no answer; the NAT at its end, by what it says: symmetric NAT", "calls work")
	want(t, "none", path(p2p.PeerInfo{}, pathinfo.View{}), Unknown, "no connection", "")
}
