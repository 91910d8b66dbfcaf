// Embed puts gRPC onto libp2p hosts that a program already has: no node, no discovery, just the tunnel.
//
//	go run ./examples/embed
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"

	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/grpcstream"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	// Two hosts as any libp2p program has them.
	alice, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		return err
	}
	defer alice.Close()
	bob, err := libp2p.New(libp2p.NoListenAddrs)
	if err != nil {
		return err
	}
	defer bob.Close()

	// Alice serves.
	server := grpcstream.NewServer(grpcstream.ServerConfig{})
	pb.RegisterGreeterServiceServer(server, greeter{})
	if err := server.Start(alice); err != nil {
		return err
	}
	defer server.Shutdown(ctx)

	// Bob connects in his own way, and calls.
	if err := bob.Connect(ctx, peer.AddrInfo{ID: alice.ID(), Addrs: alice.Addrs()}); err != nil {
		return err
	}
	channel, err := grpcstream.NewChannel(bob, grpcstream.ChannelConfig{})
	if err != nil {
		return err
	}
	defer channel.Close()
	reply, err := pb.NewGreeterServiceClient(channel).Greet(ctx, &pb.GreetRequest{Name: "Alice"})
	if err != nil {
		return err
	}
	fmt.Println(reply.GetText())
	return nil
}

type greeter struct {
	pb.UnimplementedGreeterServiceServer
}

func (greeter) Greet(ctx context.Context, req *pb.GreetRequest) (*pb.GreetResponse, error) {
	caller, _ := grpcstream.PeerFromContext(ctx)
	return &pb.GreetResponse{Text: fmt.Sprintf("Hello %s, this is %s calling", req.GetName(), caller.ID)}, nil
}
