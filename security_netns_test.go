//go:build linux

package p2p_test

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/internal/sockets"
	"github.com/lynn9388/p2p/p2ptest"
	"github.com/lynn9388/p2p/protocols/broadcast"
)

const securityDoc = "docs/security.md"

// The page for security reviewers lists every protocol that a node answers, and no other.
func TestSecurity_Protocols(t *testing.T) {
	network := p2ptest.Network()
	relay := p2p.NewNode("localhost:0", append(p2ptest.Options(network), p2p.Relay(), p2p.WithOpen())...)
	start(t, relay)
	named := relay.ID().String() + "@" + localPlace(t, relay)
	many := func(n *p2p.Node) {
		for i := range 65 {
			desc := pb.GreeterService_ServiceDesc
			desc.ServiceName = fmt.Sprintf("hello.v%d.GreeterService", i+1)
			n.RegisterService(&desc, nodetest.Greeter{})
		}
	}
	few := func(n *p2p.Node) { pb.RegisterGreeterServiceServer(n, nodetest.Greeter{}) }
	nodes := []*p2p.Node{relay}
	for _, of := range []struct {
		register func(*p2p.Node)
		opts     []p2p.Option
	}{
		{few, []p2p.Option{p2p.WithTags("zone=attic"), p2p.WithDHT()}},
		{many, nil},
		{few, []p2p.Option{p2p.WAN(named), p2p.WithOpen(), p2p.WithoutPortMapping()}},
	} {
		n := p2p.NewNode("localhost:0", append(p2ptest.Options(network), of.opts...)...)
		of.register(n)
		start(t, n)
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		if _, err := broadcast.Join[*wrapperspb.StringValue](n.Broadcast(), "news"); err != nil {
			t.Fatal(err)
		}
	}
	listed := documented(t, "Protocols", 0)
	used := map[string]bool{}
	for _, n := range nodes {
		for _, p := range n.Host().Mux().Protocols() {
			i := slices.IndexFunc(listed, func(row string) bool { return placeholders(row, network).MatchString(string(p)) })
			if i < 0 {
				t.Errorf("%s is answered, and not in the table of %s", p, securityDoc)
				continue
			}
			used[listed[i]] = true
		}
	}
	for _, row := range listed {
		if !used[row] {
			t.Errorf("%s is in the table of %s, and no node answers it", row, securityDoc)
		}
	}
}

// The page lists every socket that the nodes of a process have.
func TestSecurity_Sockets(t *testing.T) {
	if !inHost(t, time.Minute) {
		return
	}
	network := p2ptest.Network()
	relay := p2p.NewNode(":9388", p2p.WithNetwork(network), p2p.Relay(), p2p.WithOpen(), p2p.WithWebSocket(":443"))
	start(t, relay)
	wan := p2p.NewNode(":9389", p2p.WithNetwork(network), p2p.WAN(relay.ID().String()+"@127.0.0.1:9388"), p2p.WithOpen())
	start(t, wan)
	if err := wan.AwaitPeers(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	// What the table says, with the ports of these nodes.
	want := []string{"tcp 9388", "tcp 9389", "tcp 443", "udp 9388", "udp 9389", "udp 5353", "udp any"}
	rows := strings.Join(documented(t, "Ports", 0), "\n")
	for _, text := range []string{"TCP listening", "UDP", "Unix socket"} {
		if !strings.Contains(rows, text) {
			t.Errorf("no row %q in the table of %s", text, securityDoc)
		}
	}
	seen := map[string]bool{}
	own, err := sockets.Own()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range own {
		text := fmt.Sprintf("%s %d", s.Network, s.Addr.Port())
		if s.Network == "udp" && s.Addr.Port() >= 32768 {
			text = s.Network + " any" // one of the moment
		}
		if !slices.Contains(want, text) {
			t.Errorf("the nodes have a socket %s, which is not in the table of %s", text, securityDoc)
		}
		seen[text] = true
	}
	for _, text := range want {
		if !seen[text] && text != "udp any" {
			t.Errorf("the nodes have no socket %s", text)
		}
	}
}

// documented returns a column of the table under a heading of the page, without its marks.
func documented(t *testing.T, heading string, column int) (out []string) {
	t.Helper()
	data, err := os.ReadFile(securityDoc)
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(data), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", securityDoc, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	lines := bufio.NewScanner(strings.NewReader(section))
	for rows := 0; lines.Scan(); {
		cells := strings.Split(strings.Trim(lines.Text(), "|"), "|")
		if !strings.HasPrefix(lines.Text(), "|") || len(cells) <= column {
			continue
		}
		if rows++; rows > 2 { // the head and the rule below it
			out = append(out, strings.Trim(cells[column], " `"))
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no table under %q", securityDoc, heading)
	}
	return out
}

// placeholders is the pattern of a protocol ID with <network> and other things in angle brackets.
func placeholders(row, network string) *regexp.Regexp {
	row = strings.ReplaceAll(row, "<network>", network)
	return regexp.MustCompile("^" + regexp.MustCompile(`<[a-z]+>`).ReplaceAllString(regexp.QuoteMeta(row), `[^/]+`) + "$")
}

// localPlace is the host:port at which a node listens on this machine.
func localPlace(t *testing.T, n *p2p.Node) string {
	t.Helper()
	for _, a := range n.Addrs() {
		transport, _ := peer.SplitAddr(a)
		if parts := strings.Split(transport.String(), "/"); len(parts) > 4 && parts[2] == "127.0.0.1" {
			return parts[2] + ":" + parts[4]
		}
	}
	t.Fatalf("the node does not listen on 127.0.0.1: %v", n.Addrs())
	return ""
}
