package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// ErrNoNode is returned by [Dial] when no node runs at the home.
var ErrNoNode = errors.New("no node runs here")

// Dial connects to the node of a home. It fails at once, with an error that matches [ErrNoNode], when there is none.
// The caller closes the connection.
func Dial(ctx context.Context, home string) (*grpc.ClientConn, error) {
	path := SocketPath(home)
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	probe, err := dial(ctx, "")
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: %w", ErrNoNode, err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the node at %s belongs to another user: %w", home, err)
	case err != nil:
		return nil, err
	}
	if err := probe.Close(); err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///node",
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithNoProxy())
}
