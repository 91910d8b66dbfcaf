package p2ptest

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/lynn9388/p2p"
)

const service = "test.Nothing"

func TestUnsettled_SaysWhatIsMissing(t *testing.T) {
	Virtual(t, func(t *testing.T, net *Net) {
		says := func(want string, services ...string) {
			t.Helper()
			if got := unsettled(net.living(), services); !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("%q, want %q", got, want)
			}
		}
		says("")
		nodes := make([]*p2p.Node, 4)
		for i := range nodes {
			nodes[i] = net.Node()
			if i == 0 {
				nodes[i].RegisterService(&grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil)}, nil)
			}
			if err := nodes[i].StartServer(); err != nil {
				t.Fatal(err)
			}
		}
		join := func(a, b *p2p.Node) {
			t.Helper()
			if err := a.JoinNetwork(b.Addrs()[0].String()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
		says("node 0 has no neighbor")
		join(nodes[0], nodes[1])
		says("node 2 has no neighbor")
		join(nodes[2], nodes[3])
		says("node 2 is in another part of the network than the first: 2 of 4 nodes are together")
		says("node 2 finds no instance of "+service, service)
		join(nodes[3], nodes[0])
		says("")
		says("", service)
		id := nodes[1].ID()
		net.Kill(nodes[1])
		says("keeps " + id.String() + " for a neighbor, which is gone")
		net.Converge(time.Minute, service)
	})
}
