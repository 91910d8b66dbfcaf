package main

import (
	"errors"
	"testing"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/p2ptest"
)

func TestGreet(t *testing.T) {
	nodes := p2ptest.Start(t, 2, func(i int, n *p2p.Node) {
		if i == 0 {
			pb.RegisterGreeterServiceServer(n, greeter{})
		}
	})
	reply, err := pb.NewGreeterServiceClient(nodes[1]).Greet(t.Context(), &pb.GreetRequest{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	if want := "Hello Ada, you call from " + nodes[1].ID().String(); reply.GetText() != want {
		t.Errorf("%q, want %q", reply.GetText(), want)
	}
}

func TestGreet_ReturnsTheErrorOfTheStart(t *testing.T) {
	n := p2ptest.Start(t, 1, nil)[0]
	if err := greet(t.Context(), n, "Ada"); !errors.Is(err, p2p.ErrStarted) {
		t.Errorf("got %v, want ErrStarted", err)
	}
}
