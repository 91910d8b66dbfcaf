package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/cmd/p2p/internal/testservice"
	"github.com/lynn9388/p2p/protocols/broadcast"
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
	flag.Parse()
	if *nasty {
		*name = "x\x1b[2J\nshare: evil\u202e\u009b"
	}
	opts := []p2p.Option{p2p.WithNetwork(*network), p2p.WithName(*name), p2p.WithTags(tags...)}
	if *mute {
		opts = append(opts, p2p.WithoutReflection())
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
