package p2ptest_test

import (
	"context"
	"testing"
	"time"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/p2ptest"
)

type greeter struct {
	pb.UnimplementedGreeterServiceServer
}

func (greeter) Greet(_ context.Context, req *pb.GreetRequest) (*pb.GreetResponse, error) {
	return &pb.GreetResponse{Text: "Hello " + req.GetName()}, nil
}

// This test shows what Virtual is for: a service whose machine fails is called on another one, and it takes no time to
// see that.
func TestExample_AnInstanceFails(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		net.Latency(10 * time.Millisecond)
		nodes := net.Start(4, func(i int, n *p2p.Node) {
			if i > 1 { // two of them offer the service
				pb.RegisterGreeterServiceServer(n, greeter{})
			}
		})
		net.Converge(10*time.Second, pb.GreeterService_ServiceDesc.ServiceName)

		net.Kill(nodes[2])
		net.Converge(time.Minute) // the failure is noticed

		client := pb.NewGreeterServiceClient(nodes[0])
		for range 10 {
			if _, err := client.Greet(t.Context(), &pb.GreetRequest{Name: "Ada"}); err != nil {
				t.Error(err)
			}
		}
	})
}

// Two nodes behind NATs know a relay and nothing else. One calls the other by its ID, at once over the relay, and soon they
// are connected directly.
func TestExample_BehindNATs(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		net.Latency(15 * time.Millisecond)
		relay := net.Router(hosttest.Open).Start(1, nil, p2p.Relay(), p2p.WithOpen())[0]
		through := p2p.WAN(relay.Addrs()[0].String())
		setup := func(_ int, n *p2p.Node) { pb.RegisterGreeterServiceServer(n, greeter{}) }
		ada := net.Router(hosttest.PortRestricted).Start(1, setup, through, p2p.WithOpen())[0]
		bob := net.Router(hosttest.Restricted).Start(1, setup, through, p2p.WithOpen())[0]

		client := pb.NewGreeterServiceClient(ada.Peer(bob.ID().String()))
		if _, err := client.Greet(t.Context(), &pb.GreetRequest{Name: "Bob"}); err != nil {
			t.Fatal(err)
		}
		t.Logf("direct after %v", net.Await(3*time.Second, func() string {
			for _, p := range ada.Peers() {
				if p.ID == bob.ID() && p.Path == "direct" {
					return ""
				}
			}
			return "Ada reaches Bob through the relay"
		}))
	})
}
