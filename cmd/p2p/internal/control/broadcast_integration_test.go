package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/protocols/broadcast"
)

func (s *served) publish(t *testing.T, topic string, texts ...string) (*PublishResponse, error) {
	t.Helper()
	stream, err := s.Publish(t.Context())
	if err != nil {
		return nil, err
	}
	for i, text := range texts {
		req := &PublishRequest{Text: text}
		if i == 0 {
			req.Topic = topic
		}
		if err := stream.Send(req); err != nil {
			break // CloseAndRecv has the reason
		}
	}
	return stream.CloseAndRecv()
}

func TestServer_PublishReachesPrograms(t *testing.T) {
	s := newServed(t, p2p.WithDiscoveryTimeout(10*time.Second)) // GossipSub may be asked twice, a second apart
	topic, err := broadcast.Join[*wrapperspb.StringValue](s.other.Broadcast(), "news")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := topic.Subscribe(0)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.publish(t, "news", "one", "two")
	if err != nil || res.GetMessages() != 2 || res.GetPeers() != 1 {
		t.Fatalf("got %v, %v", res, err)
	}
	heard := make(map[string]int)
	for range 2 {
		m := <-sub.C()
		heard[m.Body.GetValue()+" of "+m.From.String()]++
	}
	id := s.node.ID().String()
	if diff := cmp.Diff(map[string]int{"one of " + id: 1, "two of " + id: 1}, heard); diff != "" {
		t.Error(diff)
	}
	if res, err := s.publish(t, "news"); err != nil || res.GetMessages() != 0 {
		t.Errorf("nothing: got %v, %v", res, err)
	}
	if _, err := s.publish(t, "two words", "x"); err == nil {
		t.Error("a bad topic was taken")
	}
}

func TestServer_SubscribeHearsPrograms(t *testing.T) {
	s := newServed(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := s.Subscribe(ctx, &SubscribeRequest{Topic: "news"})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := stream.Recv(); err != nil || first.GetSender() != nil {
		t.Fatalf("got %v, %v", first, err)
	}
	topic, err := broadcast.Join[*wrapperspb.Int32Value](s.other.Broadcast(), "news")
	if err != nil {
		t.Fatal(err)
	}
	if err := topic.Publish(ctx, wrapperspb.Int32(7)); err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var n wrapperspb.Int32Value
	if err := m.GetBody().UnmarshalTo(&n); err != nil || n.GetValue() != 7 || m.GetSender().GetId() != s.otherID() || m.GetSender().GetName() != "twin" {
		t.Errorf("got %v, %v", m, err)
	}
	s.server.Shutdown(ctx)
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the shutdown ends it with %v", err)
	}
}

func TestServer_QueryGetsAnswersAndErrors(t *testing.T) {
	s := newServed(t, p2p.WithDiscoveryTimeout(10*time.Second)) // GossipSub may be asked twice, a second apart
	topic, err := broadcast.Join[*wrapperspb.StringValue](s.other.Broadcast(), "inventory")
	if err != nil {
		t.Fatal(err)
	}
	_, err = broadcast.Handle(topic, func(_ context.Context, from peer.ID, q *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		if from != s.node.ID() || q.GetValue() != "ladder" {
			return nil, status.Error(codes.NotFound, "none left")
		}
		return wrapperspb.String("here"), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]codes.Code{"ladder": codes.OK, "saw": codes.NotFound} {
		stream, err := s.Query(t.Context(), &QueryRequest{Topic: "inventory", Text: text, Count: 1, Timeout: durationpb.New(20 * time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		a, err := stream.Recv()
		if err != nil || codes.Code(a.GetCode()) != want || a.GetSender().GetId() != s.otherID() || (a.GetBody() != nil) != (want == codes.OK) { //nolint:gosec // a code
			t.Errorf("%s: got %v, %v", text, a, err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: ends with %v", text, err)
		}
	}
	stream, err := s.Query(t.Context(), &QueryRequest{Topic: "inventory"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("without a timeout: %v", err)
	}
}

func TestTopics_KeepsAFew(t *testing.T) {
	s := newServed(t)
	all := &topics{join: s.server.join}
	first, err := all.get("first")
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxTopics + 5 {
		o, err := all.get(fmt.Sprintf("t%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if err := all.put(o); err != nil {
			t.Fatal(err)
		}
	}
	if len(all.open) != maxTopics {
		t.Errorf("%d topics are open", len(all.open))
	}
	if again, err := all.get("first"); err != nil || again != first {
		t.Errorf("a topic in use was left: %v", err)
	}
	if last := all.open[len(all.open)-1]; last != first {
		t.Error("the one used last is not the last")
	}
}
