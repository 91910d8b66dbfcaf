package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/cmd/p2p/internal/testservice"
	"github.com/lynn9388/p2p/protocols/broadcast"
	"github.com/lynn9388/p2p/protocols/pathinfo"
)

// shapes is a program with a node that offers ShapeService: what a user of the library would write. It prints its ID
// and ends on SIGTERM.
func shapes() {
	network := flag.String("network", p2p.DefaultNetwork, "network")
	listen := flag.String("listen", "localhost:0", "address")
	name := flag.String("name", "shapes", "name")
	join := flag.String("join", "", "place to join")
	nasty := flag.Bool("nasty", false, "a name that a terminal would obey")
	var tags []string
	flag.Func("tag", "a tag; may be repeated", func(tag string) error {
		tags = append(tags, tag)
		return nil
	})
	answer := flag.String("answer", "", "topic to answer on")
	mute := flag.Bool("mute", false, "no reflection")
	relay := flag.Bool("relay", false, "be a relay that is open to everybody")
	ahead := flag.Duration("ahead", 0, "how far its clock, as it tells it, is ahead")
	flag.Parse()
	if *nasty {
		*name = "x\x1b[2J\nshare: evil\u202e\u009b"
	}
	opts := []p2p.Option{p2p.WithNetwork(*network), p2p.WithName(*name), p2p.WithTags(tags...)}
	if *mute {
		opts = append(opts, p2p.WithoutReflection())
	}
	if *relay {
		opts = append(opts, p2p.Relay(), p2p.WithOpen())
	}
	if *ahead != 0 {
		opts = append(opts, p2p.WithServerOptions(grpc.ChainUnaryInterceptor(tellTime(*ahead))))
	}
	if err := runShapes(*listen, *join, *name, *answer, opts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runShapes(listen, join, name, answer string, opts []p2p.Option) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	node := p2p.NewNode(listen, opts...)
	testservice.RegisterShapeServiceServer(node, testservice.Server{
		Name: name, SetServing: func(ok bool) { node.SetServing(testservice.ShapeService_ServiceDesc.ServiceName, ok) },
	})
	if join != "" {
		if err := node.JoinNetwork(join); err != nil {
			return err
		}
	}
	if err := node.StartServer(); err != nil {
		return err
	}
	if answer != "" {
		if err := answerOn(node, name, answer); err != nil {
			return errors.Join(err, node.Close())
		}
	}
	fmt.Printf("share: %s@127.0.0.1:0\n", node.ID())
	<-ctx.Done()
	return node.Close()
}

// tellTime has a node tell a time that is not its own: all of a machine's nodes have one clock.
func tellTime(ahead time.Duration) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		answer, err := next(ctx, req)
		if look, ok := answer.(*pathinfo.LookResponse); ok {
			look.Time = timestamppb.New(look.GetTime().AsTime().Add(ahead))
		}
		return answer, err
	}
}

// answerOn answers the questions on a topic, which take a text and give one.
func answerOn(node *p2p.Node, name, topic string) error {
	t, err := broadcast.Join[*wrapperspb.StringValue](node.Broadcast(), topic)
	if err != nil {
		return err
	}
	_, err = broadcast.Handle(t, func(_ context.Context, _ peer.ID, q *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		if q.GetValue() == "fail" {
			return nil, status.Error(codes.NotFound, "none left")
		}
		return wrapperspb.String(q.GetValue() + ": " + name + " has one"), nil
	})
	return err
}
