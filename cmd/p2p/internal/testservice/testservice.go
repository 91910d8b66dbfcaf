// Package testservice is a gRPC service with a method of each streaming shape, for the tests of the command.
package testservice

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Server serves ShapeService.
type Server struct {
	UnimplementedShapeServiceServer
	Name       string             // for "only NAME"
	SetServing func(serving bool) // for "serving" and "not serving"; may be nil
}

// One implements ShapeServiceServer. It sends the metadata entry "x-echo" back as header and as trailer. Some texts have
// it fail, wait, or change its health; "only NAME" fails at servers of another name.
func (s Server) One(ctx context.Context, req *OneRequest) (*OneResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, v := range md.Get("x-echo") {
		_ = grpc.SetHeader(ctx, metadata.Pairs("x-echo-header", v))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-echo-trailer", v))
	}
	switch req.GetText() {
	case "fail":
		st, err := status.New(codes.FailedPrecondition, "not now \x1b[31m").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(3 * time.Second)})
		if err != nil {
			return nil, err
		}
		return nil, st.Err()
	case "reserved":
		for k := range md {
			if strings.HasPrefix(k, "p2p-") {
				return nil, status.Error(codes.InvalidArgument, "reserved metadata arrived: "+k)
			}
		}
	case "serving", "not serving":
		if s.SetServing != nil {
			s.SetServing(req.GetText() == "serving")
		}
	case "wait":
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	if name, ok := strings.CutPrefix(req.GetText(), "only "); ok && name != s.Name {
		return nil, status.Errorf(codes.NotFound, "this is %s", s.Name)
	}
	return &OneResponse{Text: req.GetText()}, nil
}

// Down implements ShapeServiceServer.
func (Server) Down(req *DownRequest, stream grpc.ServerStreamingServer[DownResponse]) error {
	for i := range req.GetCount() {
		if err := stream.Send(&DownResponse{Number: i + 1}); err != nil {
			return err
		}
	}
	return nil
}

// Up implements ShapeServiceServer.
func (Server) Up(stream grpc.ClientStreamingServer[UpRequest, UpResponse]) error {
	var texts []string
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&UpResponse{Text: strings.Join(texts, " ")})
		}
		if err != nil {
			return err
		}
		texts = append(texts, req.GetText())
	}
}

// Both implements ShapeServiceServer. It ends with an error at the text "stop".
func (Server) Both(stream grpc.BidiStreamingServer[BothRequest, BothResponse]) error {
	for {
		req, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case req.GetText() == "stop":
			return status.Error(codes.Aborted, "stopped")
		}
		if err := stream.Send(&BothResponse{Text: req.GetText()}); err != nil {
			return err
		}
	}
}
