// Hello serves a gRPC service on the local network and calls it from another node, without an address in it.
//
//	go run ./examples/hello -serve          # on one machine
//	go run ./examples/hello -name Ada       # on the same or another one
//
// The client may be started first: its call waits until a server is found.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
)

func main() {
	serve := flag.Bool("serve", false, "offer the greeter instead of calling it")
	name := flag.String("name", "world", "whom to greet")
	network := flag.String("network", p2p.DefaultNetwork, "name of the network")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	node := p2p.NewNode(":0", p2p.WithName("hello"), p2p.WithNetwork(*network))
	var err error
	if *serve {
		pb.RegisterGreeterServiceServer(node, greeter{})
		err = node.Run(ctx)
	} else {
		err = greet(ctx, node, *name)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func greet(ctx context.Context, node *p2p.Node, name string) error {
	if err := node.StartServer(); err != nil {
		return err
	}
	defer node.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	reply, err := pb.NewGreeterServiceClient(node).Greet(ctx, &pb.GreetRequest{Name: name})
	if err != nil {
		return err
	}
	fmt.Printf("%q\n", reply.GetText()) // quoted: somebody else chose it
	return nil
}

type greeter struct {
	pb.UnimplementedGreeterServiceServer
}

// Greet knows who calls: the connection proves it.
func (greeter) Greet(ctx context.Context, req *pb.GreetRequest) (*pb.GreetResponse, error) {
	caller, _ := p2p.Caller(ctx)
	return &pb.GreetResponse{Text: fmt.Sprintf("Hello %s, you call from %s", req.GetName(), caller.ID)}, nil
}
