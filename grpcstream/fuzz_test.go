package grpcstream

import (
	"io"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/interop/grpc_testing"
)

// Whatever arrives on a tunnel, the server stays up and the tunnel ends.
func FuzzTunnel(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte(http2.ClientPreface))
	f.Add(preface())
	f.Add(append(preface(), beginCall("/grpc.testing.TestService/EmptyCall")...))
	f.Add(append(append(preface(), beginCall("/grpc.testing.TestService/UnaryCall")...), message(f, &grpc_testing.SimpleRequest{Payload: payload(3)})...))
	f.Add(append(append(preface(), beginCall("/x")...), 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1))
	hosts, closeAll := memoryHosts(f, 1)
	f.Cleanup(closeAll)
	s := newTestServer(f, hosts[0], ServerConfig{})
	f.Cleanup(func() { stopNow(s) })
	f.Fuzz(func(t *testing.T, p []byte) {
		c, err := s.DialMemory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.Copy(io.Discard, c)
		}()
		_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_, _ = c.Write(p)
		_ = c.Close()
		<-read
	})
}
