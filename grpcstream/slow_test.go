package grpcstream

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"sync"
	"testing"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/lynn9388/p2p/internal/virtual"
)

// A rawTunnel is a caller's end of a tunnel without gRPC.
type rawTunnel struct {
	network.Stream
	tb      testing.TB
	writing *sync.WaitGroup
}

func openRaw(tb testing.TB, from, to corehost.Host) rawTunnel {
	tb.Helper()
	s, err := from.NewStream(tb.Context(), to.ID(), TunnelProtocol(DefaultNetwork))
	if err != nil {
		tb.Fatal(err)
	}
	return rawTunnel{s, tb, new(sync.WaitGroup)}
}

func (r rawTunnel) send(p []byte) {
	r.tb.Helper()
	if _, err := r.Write(p); err != nil {
		r.tb.Fatal(err)
	}
}

// preface is how a client begins HTTP/2: it can receive all there is, and acknowledges the server's SETTINGS unread.
func preface() []byte {
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&b, nil)
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: math.MaxInt32})
	_ = f.WriteWindowUpdate(0, math.MaxInt32-65535)
	_ = f.WriteSettingsAck()
	return b.Bytes()
}

// beginCall is the beginning of a gRPC call on HTTP/2 stream 1.
func beginCall(method string, header ...hpack.HeaderField) []byte {
	var b, block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: method},
		{Name: ":authority", Value: "x"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
	}, header...) {
		_ = enc.WriteField(h)
	}
	_ = http2.NewFramer(&b, nil).WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	return b.Bytes()
}

// message is a gRPC message on HTTP/2 stream 1.
func message(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	var b bytes.Buffer
	_ = http2.NewFramer(&b, nil).WriteData(1, true, append(messagePrefix(0, uint32(len(body))), body...))
	return b.Bytes()
}

func messagePrefix(compressed byte, length uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{compressed}, length)
}

// dribble writes one byte a second until the stream ends.
func (r rawTunnel) dribble(p []byte) {
	r.writing.Go(func() {
		for i := range p {
			if _, err := r.Write(p[i : i+1]); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	})
}

// ended waits until the server has ended the stream, and returns how long that took.
func (r rawTunnel) ended() time.Duration {
	start := time.Now()
	_, _ = io.Copy(io.Discard, r)
	return time.Since(start)
}

func TestServer_SlowCallersAreLetGo(t *testing.T) {
	cases := map[string]struct {
		act  func(r rawTunnel)
		want time.Duration
	}{
		"silent": {func(rawTunnel) {}, 5 * time.Second},
		"garbage": {func(r rawTunnel) {
			r.send([]byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"))
		}, 0},
		"garbage after the preface": {func(r rawTunnel) {
			r.send(append(preface(), bytes.Repeat([]byte{0xff}, 100)...))
		}, time.Second},
		"a byte a second": {func(r rawTunnel) { r.dribble(preface()) }, 5 * time.Second},
		"a byte a second of a call": {func(r rawTunnel) {
			r.send(preface())
			r.dribble(beginCall("/grpc.testing.TestService/EmptyCall"))
		}, 5 * time.Second},
		"silent after the preface": {func(r rawTunnel) { r.send([]byte(http2.ClientPreface)) }, 5 * time.Second},
		"settings never acknowledged": {func(r rawTunnel) {
			p := preface()
			r.send(p[:len(p)-9])
		}, 5 * time.Second},
		"acknowledged, then silent": {func(r rawTunnel) { r.send(preface()) }, 30 * time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			virtual.Test(t, func(t *testing.T) {
				hosts, closeAll := memoryHosts(t, 2)
				defer closeAll()
				s := newTestServer(t, hosts[0], ServerConfig{})
				defer stopNow(s)
				r := openRaw(t, hosts[1], hosts[0])
				c.act(r)
				got := r.ended()
				r.writing.Wait()
				if got > c.want+time.Second || got < c.want-time.Second {
					t.Errorf("ended after %v, want %v", got, c.want)
				}
			})
		})
	}
}

func newTestServer(tb testing.TB, h corehost.Host, cfg ServerConfig) *Server {
	tb.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	s := NewServer(cfg)
	grpc_testing.RegisterTestServiceServer(s, testService{})
	if err := s.Start(h); err != nil {
		tb.Fatal(err)
	}
	return s
}

// stopNow shuts a server down without waiting for calls.
func stopNow(s *Server) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Shutdown(ctx)
}
