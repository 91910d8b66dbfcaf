package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/cmd/p2p/internal/testservice"
)

// shapes is a program with a node that offers ShapeService: what a user of the library would write. It prints its ID
// and ends on SIGTERM.
func shapes() {
	network := flag.String("network", p2p.DefaultNetwork, "network")
	listen := flag.String("listen", "localhost:0", "address")
	name := flag.String("name", "shapes", "name")
	join := flag.String("join", "", "place to join")
	nasty := flag.Bool("nasty", false, "a name that a terminal would obey")
	mute := flag.Bool("mute", false, "no reflection")
	flag.Parse()
	if *nasty {
		*name = "x\x1b[2J\nshare: evil\u202e\u009b"
	}
	opts := []p2p.Option{p2p.WithNetwork(*network), p2p.WithName(*name)}
	if *mute {
		opts = append(opts, p2p.WithoutReflection())
	}
	if err := runShapes(*listen, *join, opts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runShapes(listen, join string, opts []p2p.Option) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	node := p2p.NewNode(listen, opts...)
	testservice.RegisterShapeServiceServer(node, testservice.Server{})
	if join != "" {
		if err := node.JoinNetwork(join); err != nil {
			return err
		}
	}
	if err := node.StartServer(); err != nil {
		return err
	}
	fmt.Printf("share: %s@127.0.0.1:0\n", node.ID())
	<-ctx.Done()
	return node.Close()
}
