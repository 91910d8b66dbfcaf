// Package nodetest is what tests of whole nodes share: a service, calls of it, and identities.
package nodetest

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
)

// A Greeter answers with its name and who calls.
type Greeter struct {
	pb.UnimplementedGreeterServiceServer
	Who string
}

// Greet implements [pb.GreeterServiceServer].
func (g Greeter) Greet(ctx context.Context, _ *pb.GreetRequest) (*pb.GreetResponse, error) {
	caller, ok := p2p.Caller(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "nobody calls")
	}
	return &pb.GreetResponse{Text: g.Who + " " + caller.ID.String()}, nil
}

// Greet calls a greeter, which has 20 s to answer, and returns its text.
func Greet(t *testing.T, cc grpc.ClientConnInterface) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	res, err := pb.NewGreeterServiceClient(cc).Greet(ctx, &pb.GreetRequest{Name: "x"})
	return res.GetText(), err
}

// SayHello calls a greeter and tells how that went.
func SayHello(ctx context.Context, cc grpc.ClientConnInterface) error {
	_, err := pb.NewGreeterServiceClient(cc).Greet(ctx, &pb.GreetRequest{Name: "x"})
	return err
}

// UntilAnswered makes a call again and again until it is answered, and returns the last error when ctx ends before.
func UntilAnswered(ctx context.Context, cc grpc.ClientConnInterface, call func(context.Context, grpc.ClientConnInterface) error) error {
	for {
		err := call(ctx, cc)
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// NewKey makes an identity.
func NewKey(t *testing.T) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}
