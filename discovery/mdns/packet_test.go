package mdns

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/net/dns/dnsmessage"
)

func addrs(s ...string) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range s {
		out = append(out, ma.StringCast(a))
	}
	return out
}

func texts(list []ma.Multiaddr) []string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return out
}

func TestNames_AnswerReadBack(t *testing.T) {
	n, id := newNames("office"), newID(t)
	list := addrs("/ip4/192.0.2.1/tcp/9388", "/ip4/192.0.2.1/udp/9388/quic-v1", "/ip6/2001:db8::1/tcp/9388")
	p, left, err := n.packAnswer("abc", id, list, false)
	if err != nil || left != 0 {
		t.Fatal(left, err)
	}
	m, err := n.parse(p)
	if err != nil {
		t.Fatal(err)
	}
	if m.asks || len(m.gone) > 0 || len(m.found) != 1 || m.found[0].instance != "abc" || m.found[0].info.ID != id {
		t.Fatalf("read back as %+v", m)
	}
	if diff := cmp.Diff(texts(list), texts(m.found[0].info.Addrs)); diff != "" {
		t.Error(diff)
	}
	if _, err := newNames("other").parse(p); err == nil {
		t.Error("another network has read it")
	}
}

// TestNames_RecordsOfTheSpecification reads an answer as any DNS program would see it.
func TestNames_RecordsOfTheSpecification(t *testing.T) {
	n, id := newNames("office"), newID(t)
	p, _, err := n.packAnswer("abc", id, addrs("/ip4/192.0.2.1/tcp/9388"), false)
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(p); err != nil {
		t.Fatal(err)
	}
	if !m.Response || !m.Authoritative || len(m.Answers) != 2 || len(m.Additionals) != 1 {
		t.Fatalf("%+v", m)
	}
	ptr, ok := m.Answers[0].Body.(*dnsmessage.PTRResource)
	if !ok || m.Answers[0].Header.Name.String() != "_lynn9388-p2p._udp.local." || ptr.PTR.String() != "abc._lynn9388-p2p._udp.local." {
		t.Errorf("answer %v", m.Answers[0].GoString())
	}
	txt, ok := m.Additionals[0].Body.(*dnsmessage.TXTResource)
	if !ok || !slices.Contains(txt.TXT, "dnsaddr=/ip4/192.0.2.1/tcp/9388/p2p/"+id.String()) || !slices.Contains(txt.TXT, "net="+n.tag) {
		t.Errorf("TXT %v", m.Additionals[0].GoString())
	}
}

func TestNames_Goodbye(t *testing.T) {
	n := newNames("office")
	p, _, err := n.packAnswer("abc", newID(t), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	m, err := n.parse(p)
	if err != nil || !slices.Equal(m.gone, []string{"abc"}) || len(m.found) > 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestNames_QueryReadBack(t *testing.T) {
	n := newNames("office")
	var known []string
	for i := range 500 {
		known = append(known, fmt.Sprintf("instance%d", i))
	}
	p, err := n.packQuery(known)
	if err != nil {
		t.Fatal(err)
	}
	if len(p) > maxPacket {
		t.Errorf("a query of %d bytes; want at most %d", len(p), maxPacket)
	}
	m, err := n.parse(p)
	if err != nil || !m.asks || len(m.found)+len(m.gone) > 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	if len(m.known) < 35 || !slices.Equal(m.known, known[:len(m.known)]) {
		t.Errorf("the query names %d of the known", len(m.known))
	}
	if m, err := newNames("other").parse(p); err == nil {
		t.Errorf("another network feels asked: %+v", m)
	}
}

func TestNames_ManyAddressesFitOnePacket(t *testing.T) {
	n, id := newNames("office"), newID(t)
	var list []ma.Multiaddr
	for i := range 100 {
		list = append(list, ma.StringCast(fmt.Sprintf("/ip6/2001:db8:1111:2222:3333:4444:5555:%x/udp/9388/quic-v1", i+1)))
	}
	p, left, err := n.packAnswer(strings.Repeat("x", maxLabel), id, list, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(p) > maxPacket {
		t.Errorf("%d bytes; want at most %d", len(p), maxPacket)
	}
	m, err := n.parse(p)
	if err != nil || len(m.found) != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	if got := len(m.found[0].info.Addrs); got+left != len(list) || got < 7 {
		t.Errorf("%d addresses told and %d left out of %d", got, left, len(list))
	}
}

func TestNames_TXT(t *testing.T) {
	n, id, other := newNames("office"), newID(t), newID(t)
	at := func(a string, id peer.ID) string { return "dnsaddr=" + a + "/p2p/" + id.String() }
	good := at("/ip4/192.0.2.1/tcp/1", id)
	for name, c := range map[string]struct {
		txt  []string
		want int // addresses; 0: refused
	}{
		"good":                  {[]string{"net=" + n.tag, good}, 1},
		"without a network":     {[]string{good}, 0},
		"of another network":    {[]string{"net=" + newNames("x").tag, good}, 0},
		"no address":            {[]string{"net=" + n.tag}, 0},
		"nonsense":              {[]string{"net=" + n.tag, "dnsaddr=", "dnsaddr=/", "dnsaddr=/ip4/1.2.3.4", "\x00\xff", "a=b", good}, 1},
		"two peers":             {[]string{"net=" + n.tag, good, at("/ip4/192.0.2.1/tcp/1", other)}, 0},
		"by a relay":            {[]string{"net=" + n.tag, at("/ip4/192.0.2.1/tcp/1/p2p/"+other.String()+"/p2p-circuit", id)}, 0},
		"names":                 {[]string{"net=" + n.tag, at("/dns/example.com/tcp/1", id), at("/dnsaddr/example.com", id)}, 0},
		"metadata, multicast":   {[]string{"net=" + n.tag, at("/ip4/169.254.169.254/tcp/80", id), at("/ip4/224.0.0.1/udp/1/quic-v1", id)}, 0},
		"unspecified":           {[]string{"net=" + n.tag, at("/ip4/0.0.0.0/tcp/1", id), at("/ip6/::/tcp/1", id)}, 0},
		"more than may be":      {append([]string{"net=" + n.tag}, slices.Repeat([]string{good}, 100)...), maxAddrs},
		"an ID without a place": {[]string{"net=" + n.tag, "dnsaddr=/p2p/" + id.String()}, 0},
	} {
		info, ok := n.parseTXT(c.txt)
		if ok != (c.want > 0) || ok && (len(info.Addrs) != c.want || info.ID != id) {
			t.Errorf("%s: %v, %v; want %d addresses", name, info, ok, c.want)
		}
	}
}

// FuzzParse holds that no packet makes the parser fail, and that what it returns is within its bounds.
func FuzzParse(f *testing.F) {
	n := newNames("office")
	id, err := peer.Decode("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
	if err != nil {
		f.Fatal(err)
	}
	answer, _, err := n.packAnswer("abc", id, addrs("/ip4/192.0.2.1/tcp/9388", "/ip6/2001:db8::1/udp/9388/quic-v1"), false)
	if err != nil {
		f.Fatal(err)
	}
	goodbye, _, err := n.packAnswer("abc", id, nil, true)
	if err != nil {
		f.Fatal(err)
	}
	query, err := n.packQuery([]string{"abc", "def"})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{answer, goodbye, query, nil, answer[:len(answer)-3], query[:20], make([]byte, 12)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := n.parse(b)
		if err != nil {
			return
		}
		if m.empty() || len(m.found) > maxInstances || len(m.known) > maxRecords || len(m.gone) > maxRecords {
			t.Fatalf("out of bounds: %+v", m)
		}
		for _, instance := range slices.Concat(m.known, m.gone) {
			if len(instance) > maxLabel || strings.ContainsFunc(instance, func(r rune) bool { return r > 'z' || r < '-' }) {
				t.Fatalf("instance %q", instance)
			}
		}
		for _, a := range m.found {
			if err := a.info.ID.Validate(); err != nil || len(a.info.Addrs) == 0 || len(a.info.Addrs) > maxAddrs {
				t.Fatalf("%+v", a)
			}
			if _, _, err := n.packAnswer(a.instance, a.info.ID, a.info.Addrs, false); err != nil {
				t.Fatal(err)
			}
		}
	})
}
