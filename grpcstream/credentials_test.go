package grpcstream

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

func somePeer(tb testing.TB, text string) peer.ID {
	tb.Helper()
	id, err := peer.Decode(text)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

const (
	aliceText = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
	bobText   = "12D3KooWGRUKYjGwL4wQHhzZkdr7AGVZ7uvmpDxq1AuCGmtQzSSn"
)

func TestCredentials_TheClientChecksWhoAnswered(t *testing.T) {
	alice, bob := somePeer(t, aliceText), somePeer(t, bobText)
	left, right := net.Pipe()
	defer left.Close()
	defer right.Close()
	conn := memoryConn{left, Peer{ID: alice}}
	creds := NewCredentials()
	if creds.Info().SecurityProtocol != "libp2p" || creds.Clone() == nil || creds.OverrideServerName("x") != nil { //nolint:staticcheck // part of the interface
		t.Error("the small methods")
	}
	for name, c := range map[string]struct {
		conn      net.Conn
		authority string
		attribute peer.ID
		want      string
	}{
		"named by the address":                {conn, bobText, alice, ""},
		"another is named by the address":     {conn, aliceText, bob, "not " + bobText},
		"named by the authority":              {conn, aliceText, "", ""},
		"another is named by the authority":   {conn, bobText, "", bobText},
		"a service is named by the authority": {conn, "my.Service", "", ""},
		"not a libp2p stream":                 {left, aliceText, alice, "not a libp2p stream"},
	} {
		t.Run(name, func(t *testing.T) {
			var a *attributes.Attributes
			if c.attribute != "" {
				a = withPeerAttribute(a, c.attribute)
			}
			info, err := authInfo(c.conn)
			if err == nil {
				err = info.check(a, c.authority)
			}
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if info.Peer.ID != alice || info.AuthType() != "libp2p" || info.SecurityLevel != credentials.PrivacyAndIntegrity {
				t.Errorf("got %+v", info)
			}
		})
	}
	if _, _, err := creds.ServerHandshake(left); err == nil {
		t.Error("the server took a connection that is no stream")
	}
	if _, _, err := creds.ClientHandshake(t.Context(), bobText, conn); err == nil {
		t.Error("the client took another peer than the authority names")
	}
}

// token is a per-RPC credential that must not go over an insecure connection.
type secretToken struct{}

func (secretToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"x-token": "secret"}, nil
}
func (secretToken) RequireTransportSecurity() bool { return true }

func TestCredentials_CarryPerRPCCredentialsAndAuthorities(t *testing.T) {
	_, server, client := memoryServer(t, ServerConfig{})
	c := grpc_testing.NewTestServiceClient(plainClient(t, client, server.ID(), grpc.WithPerRPCCredentials(secretToken{})))
	got, err := c.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
	if err != nil || got.GetHostname() != "x-token" {
		t.Errorf("got %v, %v", got.GetHostname(), err)
	}
	if _, err := c.EmptyCall(t.Context(), &grpc_testing.Empty{}, grpc.CallAuthority("my.Service")); err != nil {
		t.Errorf("a service as the authority: %v", err)
	}
	if _, err := c.EmptyCall(t.Context(), &grpc_testing.Empty{}, grpc.CallAuthority(client.ID().String())); status.Code(err) != codes.Unavailable {
		t.Errorf("another peer as the authority: %v", err)
	}
}

func TestPeerFromContext_WithoutACall(t *testing.T) {
	if p, ok := PeerFromContext(t.Context()); ok {
		t.Errorf("got %v", p)
	}
}
