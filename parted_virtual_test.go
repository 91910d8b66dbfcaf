package p2p_test

import (
	"testing"
	"time"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/p2ptest"
)

// A node does not dial whom its user parted from, though others name that peer and the table has it: not for the table
// itself, nor to look for a service, nor to ask it something. A call of the user's is a reason.
func TestDisconnect_NothingButTheUserBringsAPeerBack(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		net.Latency(5 * time.Millisecond)
		nodes := net.Start(4, func(i int, n *p2p.Node) {
			if i == 1 {
				pb.RegisterGreeterServiceServer(n, nodetest.Greeter{})
			}
		}, p2p.WithDHT(), p2p.WithDiscoveryTimeout(time.Second))
		net.Converge(20 * time.Second)
		time.Sleep(30 * time.Second) // until the tables are full, and all is announced
		here, there := nodes[0], nodes[1]
		mustGreet(t, here)
		for n, of := range map[*p2p.Node]*p2p.Node{here: there, there: here} { // neither comes back by itself
			if err := n.Disconnect(of.ID().String()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second) // until all have noticed
		for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); {
			if _, err := nodetest.Greet(t, here); err == nil { // which looks for the service
				t.Fatal("it was called")
			}
			for _, err := range here.Instances(t.Context(), "nobody.v1.Has") {
				if err == nil {
					t.Fatal("somebody offers what nobody does")
				}
			}
			for _, c := range here.Host().Network().ConnsToPeer(there.ID()) {
				t.Fatalf("they are connected: %v", c)
			}
		}
		mustGreet(t, here.Peer(there.Addrs()[0].String()))
	})
}
