// Nat calls a service on another network: both machines may be behind NATs, and one public machine of your own stands in
// between. The first calls go through it; then the two get through their NATs and talk directly.
//
//	go run ./examples/nat -relay relay.example.org     # on the public machine: its name or address; TCP and UDP 9388 open
//	go run ./examples/nat -join ID@HOST:9388 -serve     # on a machine at home, with what the relay has printed
//	go run ./examples/nat -join ID@HOST:9388            # on a machine anywhere else
//
// The nodes of this example let everybody in who knows the relay. For machines of your own list their IDs instead: see
// p2p.WithAllowFile, and p2p.WithHome for identities that last.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
)

func main() {
	relay := flag.String("relay", "", "be the relay, at this public `name` or address")
	join := flag.String("join", "", "the relay, as it says: `ID@HOST:9388`")
	serve := flag.Bool("serve", false, "offer the greeter instead of calling it")
	calls := flag.Int("calls", 10, "how many calls to make, one a second")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch {
	case *relay != "":
		node := p2p.NewNode(":9388", p2p.Relay(), p2p.WithOpen(), p2p.WithAnnounce(*relay))
		err = carry(ctx, node, *relay)
	case *serve:
		node := p2p.NewNode(":0", p2p.WAN(*join), p2p.WithOpen())
		pb.RegisterGreeterServiceServer(node, greeter{})
		err = node.Run(ctx)
	default:
		node := p2p.NewNode(":0", p2p.WAN(*join), p2p.WithOpen())
		err = greet(ctx, os.Stdout, node, *calls)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// carry is a relay until ctx ends.
func carry(ctx context.Context, node *p2p.Node, host string) error {
	if err := node.StartServer(); err != nil {
		return err
	}
	fmt.Printf("-join %s@%s:9388\n", node.ID(), host)
	<-ctx.Done()
	return node.Close()
}

// greet calls whoever offers the greeter, wherever it is.
func greet(ctx context.Context, w io.Writer, node *p2p.Node, calls int) error {
	if err := node.StartServer(); err != nil {
		return err
	}
	defer node.Close()
	client := pb.NewGreeterServiceClient(node)
	for range calls {
		begin := time.Now()
		reply, err := client.Greet(ctx, &pb.GreetRequest{Name: "Ada"})
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%q (after %v)\n", reply.GetText(), time.Since(begin).Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
	for _, p := range node.Peers() {
		if p.NotDirect != "" {
			fmt.Fprintf(w, "%s is not reached directly: %s\n", p.ID, p.NotDirect)
		}
	}
	return nil
}

type greeter struct {
	pb.UnimplementedGreeterServiceServer
}

// Greet knows on which path the call has come.
func (greeter) Greet(ctx context.Context, req *pb.GreetRequest) (*pb.GreetResponse, error) {
	caller, _ := p2p.Caller(ctx)
	path := "directly, over " + caller.Transport
	if caller.Path == "relay" {
		path = "through the relay " + caller.Relay.String()
	}
	return &pb.GreetResponse{Text: fmt.Sprintf("Hello %s, you call %s", req.GetName(), path)}, nil
}
