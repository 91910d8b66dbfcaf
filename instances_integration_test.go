package p2p_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/p2ptest"
)

// deployments starts a caller and four nodes with a service, two of each color.
func deployments(t *testing.T) (me *p2p.Node, blue, green []*p2p.Node) {
	t.Helper()
	network := p2ptest.Network()
	add := func(opts ...p2p.Option) *p2p.Node {
		n := p2p.NewNode("127.0.0.1:0", append(p2ptest.Options(network), opts...)...)
		if me != nil {
			pb.RegisterGreeterServiceServer(n, nodetest.Greeter{Who: fmt.Sprint(len(blue) + len(green))})
			if err := n.JoinNetwork(me.Addrs()[0].String()); err != nil {
				t.Fatal(err)
			}
		}
		start(t, n)
		return n
	}
	me = add()
	for range 2 {
		blue = append(blue, add(p2p.WithTags("color=blue", "zone=1")))
		green = append(green, add(p2p.WithTags("color=green", "zone=1")))
	}
	poll.Until(t, 10*time.Second, func() string {
		if n := len(known(me, pb.GreeterService_ServiceDesc.ServiceName)); n != 4 {
			return fmt.Sprintf("%d instances are known", n)
		}
		return ""
	})
	return me, blue, green
}

// Two deployments of one service with different tags never get each other's calls.
func TestNode_WithTag(t *testing.T) {
	me, blue, _ := deployments(t)
	name := pb.GreeterService_ServiceDesc.ServiceName
	for color, own := range map[string]string{"blue": "02", "green": "13"} {
		cc := me.Service(name, p2p.WithTag("color", color), p2p.WithTag("zone", "1"))
		for range 1000 {
			if who := mustGreet(t, cc)[:1]; !strings.Contains(own, who) {
				t.Fatalf("a call for %s went to node %s", color, who)
			}
		}
	}
	if _, err := nodetest.Greet(t, me.Service(name, p2p.WithTag("color", "not one"))); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a bad tag: %v", err)
	}
	poll.Until(t, 10*time.Second, func() string {
		got := known(me, name, p2p.WithTag("color", "blue"))
		if len(got) != 2 {
			return fmt.Sprintf("%d blue instances are known", len(got))
		}
		for _, i := range got {
			if i.ID != blue[0].ID() && i.ID != blue[1].ID() || !i.Connected || i.Health != "serving" || i.Path != "direct" || strings.Join(i.Tags, " ") != "color=blue zone=1" {
				return fmt.Sprintf("%+v", i)
			}
		}
		return ""
	})
	if err := p2p.NewNode("127.0.0.1:0", p2p.WithTags("color")).StartServer(); err == nil {
		t.Error("a node with a bad tag was started")
	}
}

func TestNode_NotServingGetsNoCall(t *testing.T) {
	me, blue, green := deployments(t)
	name := pb.GreeterService_ServiceDesc.ServiceName
	ask := func() string {
		who := map[string]bool{}
		for range 100 {
			who[mustGreet(t, me.Service(name, p2p.WithTag("color", "blue")))[:1]] = true
		}
		return fmt.Sprint(who)
	}
	await := func(want string) {
		t.Helper()
		took := poll.Until(t, 20*time.Second, func() string {
			if got := ask(); got != want {
				return "the calls go to " + got
			}
			return ""
		})
		t.Logf("%s after %v, want 1 s", want, took.Round(time.Millisecond)) // in virtual time that is exact
	}
	await("map[0:true 2:true]")
	blue[0].SetServing(name, false)
	await("map[2:true]")
	if got := ask(); got != "map[2:true]" {
		t.Errorf("of the two one is not serving, and the calls went to %s", got)
	}
	blue[0].SetServing(name, true)
	await("map[0:true 2:true]")
	// One call on every instance.
	n := 0
	for i, err := range me.Each(t.Context(), name, func(ctx context.Context, cc grpc.ClientConnInterface) error {
		_, err := pb.NewGreeterServiceClient(cc).Greet(ctx, &pb.GreetRequest{}, p2p.Repeatable())
		return err
	}, p2p.WithTag("color", "green")) {
		if n++; err != nil || i.ID != green[0].ID() && i.ID != green[1].ID() {
			t.Errorf("%+v: %v", i, err)
		}
	}
	if n != 2 {
		t.Errorf("%d results", n)
	}
	if got := mustGreet(t, me.Service(name, p2p.Nearest())); got == "" {
		t.Error("the nearest does not answer")
	}
}
