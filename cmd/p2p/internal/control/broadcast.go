package control

import (
	"context"
	"errors"
	"io"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/protocols/broadcast"
)

// join joins a topic for messages of all types.
func (s *Server) join(topic string) (*broadcast.Topic[*anypb.Any], error) {
	return broadcast.Join[*anypb.Any](s.cfg.Node.Broadcast(), topic)
}

// Publish implements ControlServiceServer.
func (s *Server) Publish(stream grpc.ClientStreamingServer[PublishRequest, PublishResponse]) (err error) {
	ctx, cancel := s.untilClosing(stream.Context())
	defer cancel()
	req, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return stream.SendAndClose(&PublishResponse{})
	}
	if err != nil {
		return err
	}
	topic, err := s.topics.get(req.GetTopic())
	if err != nil {
		return failed(req.GetTopic(), err)
	}
	defer func() {
		if left := s.topics.put(topic); err == nil {
			err = left
		}
	}()
	res := &PublishResponse{}
	for ; err == nil; req, err = stream.Recv() {
		text, err := textMessage(req.GetText())
		if err != nil {
			return err
		}
		if err := topic.Publish(ctx, text); err != nil {
			return failed(topic.Name(), err)
		}
		res.Messages++
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	res.Peers = int32(min(len(topic.Peers()), math.MaxInt32)) //nolint:gosec // bounded here
	return stream.SendAndClose(res)
}

func textMessage(text string) (*anypb.Any, error) { return anypb.New(wrapperspb.String(text)) }

// failed says what to do about a message that was not published.
func failed(topic string, err error) error {
	if errors.Is(err, broadcast.ErrNoPeers) {
		return status.Errorf(codes.Unavailable, "nobody else is on the topic %q: run \"p2p sub %s\" at another node; \"p2p peers ls\" shows the nodes", topic, topic)
	}
	return plain(err)
}

// Subscribe implements ControlServiceServer.
func (s *Server) Subscribe(req *SubscribeRequest, stream grpc.ServerStreamingServer[SubscribeResponse]) (err error) {
	ctx, cancel := s.untilClosing(stream.Context())
	defer cancel()
	topic, err := s.join(req.GetTopic())
	if err != nil {
		return plain(err)
	}
	defer func() {
		if left := topic.Close(); err == nil {
			err = left
		}
	}()
	sub, err := topic.Subscribe(0)
	if err != nil {
		return plain(err)
	}
	if err := stream.Send(&SubscribeResponse{}); err != nil {
		return err
	}
	for m := range sub.Messages(ctx) {
		if m.Missed > 0 {
			if err := stream.Send(&SubscribeResponse{Missed: m.Missed}); err != nil {
				return err
			}
		}
		if err := stream.Send(&SubscribeResponse{Sender: sender(s.find(m.From)), Body: m.Body, Time: timestamppb.New(m.Time)}); err != nil {
			return err
		}
	}
	return nil
}

// Query implements ControlServiceServer.
func (s *Server) Query(req *QueryRequest, stream grpc.ServerStreamingServer[QueryResponse]) (err error) {
	timeout := req.GetTimeout().AsDuration()
	if timeout <= 0 || req.GetCount() < 0 {
		return status.Errorf(codes.InvalidArgument, "a timeout of %s and a count of %d: the timeout must be more than 0, the count not less", timeout, req.GetCount())
	}
	ctx, cancel := s.untilClosing(stream.Context())
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, timeout)
	defer cancel()
	topic, err := s.topics.get(req.GetTopic())
	if err != nil {
		return failed(req.GetTopic(), err)
	}
	defer func() {
		if left := s.topics.put(topic); err == nil {
			err = left
		}
	}()
	question, err := textMessage(req.GetText())
	if err != nil {
		return err
	}
	for a, err := range broadcast.Query[*anypb.Any](ctx, topic.Topic, question, int(req.GetCount())) {
		if err != nil && a.From == "" {
			return failed(topic.Name(), err)
		}
		res := &QueryResponse{Sender: sender(s.find(a.From)), Body: a.Body}
		if err != nil {
			st := status.Convert(err)
			res.Code, res.Error = int32(st.Code()), st.Message() //nolint:gosec // at most 16
		}
		if err := stream.Send(res); err != nil {
			return err
		}
	}
	return nil
}

// untilClosing returns a context that also ends when the server is shut down: for calls that go on until they are ended.
func (s *Server) untilClosing(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-s.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
