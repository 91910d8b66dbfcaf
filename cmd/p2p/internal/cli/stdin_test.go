package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
)

func TestInterruptible_ReadsUntilTheCommandIsToldToEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	from, to := io.Pipe()
	defer from.Close()
	in := &interruptible{ctx, from}
	go func() { _, _ = io.WriteString(to, "typed") }()
	got := make([]byte, 5)
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "typed" {
		t.Errorf("read %q, %v", got, err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := in.Read(got)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("a read while nobody types: %v", err)
	}
}

// leaving is a node that stops.
type leaving struct {
	control.UnimplementedControlServiceServer
}

func (leaving) Publish(grpc.ClientStreamingServer[control.PublishRequest, control.PublishResponse]) error {
	return status.Error(codes.Unavailable, "the node has stopped")
}

func TestPub_EndsWithTheNodeWhileItWaitsForALine(t *testing.T) {
	l := bufconn.Listen(1 << 10)
	s := grpc.NewServer()
	control.RegisterControlServiceServer(s, leaving{})
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	conn, err := grpc.NewClient("passthrough:///node", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	out, err := output.New(io.Discard, output.Table)
	if err != nil {
		t.Fatal(err)
	}
	from, to := io.Pipe()
	defer to.Close()
	a := &app{stdin: from}
	err = publish(t.Context(), control.NewControlServiceClient(conn), out, "news", a.lines())
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "has stopped") {
		t.Errorf("error %v", err)
	}
}
