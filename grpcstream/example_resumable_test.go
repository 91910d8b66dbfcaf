package grpcstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"

	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/lynn9388/p2p/grpcstream"
)

// counter counts, and answers with each number.
type counter struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (counter) StreamingOutputCall(req *grpc_testing.StreamingOutputCallRequest, s grpc_testing.TestService_StreamingOutputCallServer) error {
	for i := range req.GetResponseParameters() {
		p := &grpc_testing.Payload{Body: []byte(fmt.Sprint(i + 1))}
		if err := s.Send(&grpc_testing.StreamingOutputCallResponse{Payload: p}); err != nil {
			return err
		}
	}
	return nil
}

// A stream that goes on after its connection was lost. All that it needs is the option.
func ExampleResumable() {
	net, err := mocknet.FullMeshConnected(2) // two hosts in memory
	if err != nil {
		panic(err)
	}
	defer net.Close()
	here, there := net.Hosts()[0], net.Hosts()[1]
	server := grpcstream.NewServer(grpcstream.ServerConfig{})
	grpc_testing.RegisterTestServiceServer(server, counter{})
	if err := server.Start(there); err != nil {
		panic(err)
	}
	defer func() { _ = server.Shutdown(context.Background()) }()
	channel, err := grpcstream.NewChannel(here, grpcstream.ChannelConfig{})
	if err != nil {
		panic(err)
	}
	defer channel.Close()

	client := grpc_testing.NewTestServiceClient(channel.Peer(there.ID().String()))
	request := &grpc_testing.StreamingOutputCallRequest{ResponseParameters: make([]*grpc_testing.ResponseParameters, 4)}
	stream, err := client.StreamingOutputCall(context.Background(), request, grpcstream.Resumable())
	if err != nil {
		panic(err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s\n", m.GetPayload().GetBody())
		_ = here.Network().ClosePeer(there.ID()) // after each message the connection is lost
	}
	// Output:
	// 1
	// 2
	// 3
	// 4
}
