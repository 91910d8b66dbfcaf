package p2p_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/p2ptest"
	"github.com/lynn9388/p2p/protocols/broadcast"
	"github.com/lynn9388/p2p/protocols/message"
)

// The functions here hold what the documents show, word for word (see readme_netns_test.go), and the tests run them.

// syncBuilder is a strings.Builder for several goroutines.
type syncBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuilder) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuilder) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func docPeer(ctx context.Context, node *p2p.Node, id string) (string, error) {
	reply, err := pb.NewGreeterServiceClient(node.Peer(id)).Greet(ctx, &pb.GreetRequest{Name: "Ada"})
	return reply.GetText(), err
}

func docAny(ctx context.Context, node *p2p.Node) (string, error) {
	reply, err := pb.NewGreeterServiceClient(node).Greet(ctx, &pb.GreetRequest{Name: "Ada"})
	return reply.GetText(), err
}

func docTag(ctx context.Context, node *p2p.Node) (string, error) {
	attic := pb.NewGreeterServiceClient(node.Service("", p2p.WithTag("zone", "attic"), p2p.Nearest()))
	reply, err := attic.Greet(ctx, &pb.GreetRequest{Name: "Ada"}, p2p.Repeatable())
	return reply.GetText(), err
}

func docInstances(ctx context.Context, node *p2p.Node, w io.Writer) {
	for at, err := range node.Instances(ctx, "hello.v1.GreeterService") {
		fmt.Fprintln(w, at.ID, at.Tags, at.Health, at.Path, at.RTT, err)
	}
}

func docEach(ctx context.Context, node *p2p.Node, w io.Writer) {
	var mu sync.Mutex
	var texts []string
	greet := func(ctx context.Context, cc grpc.ClientConnInterface) error { // runs for several instances at once
		reply, err := pb.NewGreeterServiceClient(cc).Greet(ctx, &pb.GreetRequest{Name: "Ada"})
		mu.Lock()
		defer mu.Unlock()
		texts = append(texts, reply.GetText())
		return err
	}
	for at, err := range node.Each(ctx, "hello.v1.GreeterService", greet) {
		fmt.Fprintln(w, at.ID, err)
	}
	fmt.Fprintln(w, texts)
}

func TestDocs_Services(t *testing.T) {
	nodes := p2ptest.Start(t, 3, func(i int, n *p2p.Node) {
		if i > 0 {
			pb.RegisterGreeterServiceServer(n, nodetest.Greeter{Who: fmt.Sprintf("node %d", i)})
		}
	}, p2p.WithTags("zone=attic"))
	id := nodes[2].ID().String()
	if got, err := docPeer(t.Context(), nodes[0], id); err != nil || !strings.HasPrefix(got, "node 2") {
		t.Errorf("peer: %q, %v", got, err)
	}
	if got, err := docAny(t.Context(), nodes[0]); err != nil || !strings.HasPrefix(got, "node") {
		t.Errorf("any: %q, %v", got, err)
	}
	if got, err := docTag(t.Context(), nodes[0]); err != nil || !strings.HasPrefix(got, "node") {
		t.Errorf("tag: %q, %v", got, err)
	}
	poll.Until(t, 10*time.Second, func() string {
		var b syncBuilder
		docInstances(t.Context(), nodes[0], &b)
		if n := len(regexp.MustCompile(`(?m)^12D3Koo\w+ \[zone=attic\] .* <nil>$`).FindAllString(b.String(), -1)); n != 2 {
			return "instances: " + b.String()
		}
		return ""
	})
	var b syncBuilder
	docEach(t.Context(), nodes[0], &b)
	for _, want := range []string{"node 1 ", "node 2 ", nodes[1].ID().String() + " <nil>", id + " <nil>"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("each: no %q in %s", want, b.String())
		}
	}
}

func docHandle(node *p2p.Node) {
	router := message.NewRouter()
	message.Handle(router, func(_ context.Context, from peer.ID, req *pb.GreetRequest) (*pb.GreetResponse, error) {
		return &pb.GreetResponse{Text: "Hello " + req.GetName() + ", you are " + from.String()}, nil
	})
	message.Register(node, router) // before the start
}

func docSend(ctx context.Context, node *p2p.Node, id string) (string, error) {
	answer, err := message.Send[*pb.GreetResponse](ctx, node.Peer(id), &pb.GreetRequest{Name: "Ada"})
	return answer.GetText(), err
}

func TestDocs_Messages(t *testing.T) {
	nodes := p2ptest.Start(t, 2, func(_ int, n *p2p.Node) { docHandle(n) })
	got, err := docSend(t.Context(), nodes[0], nodes[1].ID().String())
	if want := "Hello Ada, you are " + nodes[0].ID().String(); err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func docPublish(ctx context.Context, node *p2p.Node) error {
	topic, err := broadcast.Join[*wrapperspb.StringValue](node.Broadcast(), "news")
	if err != nil {
		return err
	}
	err = topic.Publish(ctx, wrapperspb.String("hello"))
	return err
}

func docSubscribe(ctx context.Context, node *p2p.Node, w io.Writer) error {
	topic, err := broadcast.Join[*wrapperspb.StringValue](node.Broadcast(), "news")
	if err != nil {
		return err
	}
	sub, err := topic.Subscribe(0)
	if err != nil {
		return err
	}
	for m := range sub.Messages(ctx) {
		fmt.Fprintln(w, m.From, m.Body.GetValue())
	}
	return nil
}

func docAnswer(node *p2p.Node, have string) error {
	topic, err := broadcast.Join[*wrapperspb.StringValue](node.Broadcast(), "inventory")
	if err != nil {
		return err
	}
	_, err = broadcast.Handle(topic, func(_ context.Context, from peer.ID, q *wrapperspb.StringValue) (*wrapperspb.BoolValue, error) {
		return wrapperspb.Bool(q.GetValue() == have), nil
	})
	return err
}

func docQuery(ctx context.Context, node *p2p.Node, w io.Writer) error {
	topic, err := broadcast.Join[*wrapperspb.StringValue](node.Broadcast(), "inventory")
	if err != nil {
		return err
	}
	for a, err := range broadcast.Query[*wrapperspb.BoolValue](ctx, topic, wrapperspb.String("ladder"), 0) {
		fmt.Fprintln(w, a.From, a.Body.GetValue(), err)
	}
	return nil
}

func TestDocs_Broadcast(t *testing.T) {
	nodes := p2ptest.Start(t, 2, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var b syncBuilder
	done := make(chan error, 1)
	go func() { done <- docSubscribe(ctx, nodes[1], &b) }()
	if err := docPublish(ctx, nodes[0]); err != nil {
		t.Error(err)
	}
	poll.Until(t, 10*time.Second, func() string {
		if want := nodes[0].ID().String() + " hello\n"; b.String() != want {
			return "heard " + b.String()
		}
		return ""
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDocs_Query(t *testing.T) {
	t.Parallel()
	nodes := p2ptest.Start(t, 3, nil)
	for i, n := range nodes[1:] {
		if err := docAnswer(n, []string{"ladder", "saw"}[i]); err != nil {
			t.Fatal(err)
		}
	}
	poll.Until(t, 20*time.Second, func() string {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var b syncBuilder
		if err := docQuery(ctx, nodes[0], &b); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{nodes[1].ID().String() + " true <nil>", nodes[2].ID().String() + " false <nil>"} {
			if !strings.Contains(b.String(), want) {
				return "answers: " + b.String()
			}
		}
		return ""
	})
}

// TestDocs_EveryNameOf2018 looks up what the library exported in 2018, in any of its versions.
func TestDocs_EveryNameOf2018(t *testing.T) {
	page, err := os.ReadFile("docs/coming-from-2018.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(`
		AddPeer AddPeers Broadcast DisconnectAll Disconnect DiscoverPeers GetAddr GetConnection GetNeighbors GetPeer
		GetPeerState GetPeers GetPeersNum HasPeer IsSelf JoinNetwork LeaveNetwork MessageLogs MessageManager
		MessageService Mux NewMessageManager NewNode NewPeerManager NodeService Peer PeerManager PeerService Peers Ping
		PingPong Process ProcessSet ReceiveBroadcast ReceiveMessage RegisterProcess RegisterService RemovePeer
		RequestBroadcast RequestNeighbors SendBroadcast SendMessage Server StartDiscoverPeers StartServer
		StopDiscoverPeers StopServer Wait Waiter`) {
		if !regexp.MustCompile(`(?m)^\|[^|]*\b` + name + `\b[^|]*\|`).Match(page) {
			t.Errorf("%s is in no row", name)
		}
	}
}
