package p2p_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/p2ptest"
)

// The benchmarks run their servers in a second process, as a network would: this test binary with benchServerEnv set.
const benchServerEnv = "P2P_BENCH_SERVER"

// rawProtocol is the echo of the raw libp2p stream: a 4-byte length and so many bytes, both ways.
const rawProtocol = "/p2p-bench/raw/1.0.0"

// benchDesc is a service without generated code: Echo returns what it gets; Down sends messages of the size asked for
// until the caller has enough.
var benchDesc = grpc.ServiceDesc{
	ServiceName: "bench.Bench",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Echo", Handler: func(srv any, ctx context.Context, dec func(any) error, ic grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.BytesValue)
		if err := dec(in); err != nil {
			return nil, err
		}
		echo := func(_ context.Context, req any) (any, error) { return req, nil }
		if ic == nil {
			return echo(ctx, in)
		}
		return ic(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/bench.Bench/Echo"}, echo)
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Down", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
		in := new(wrapperspb.UInt32Value)
		if err := stream.RecvMsg(in); err != nil {
			return err
		}
		out := wrapperspb.Bytes(make([]byte, in.GetValue()))
		for {
			if err := stream.SendMsg(out); err != nil {
				return err
			}
		}
	}}},
}

// idleNeighbors is how many neighbors BenchmarkIdleNeighbor measures.
const idleNeighbors = 20

// benchServers is what the server process tells of itself.
type benchServers struct {
	Node     []string // multiaddrs with /p2p/ID
	Raw      []string // the same of a bare host
	Idle     []string // one multiaddr of each of idleNeighbors further nodes
	Network  string
	Same     string // grpc + TLS 1.3 with the node's windows and workers
	Defaults string // grpc + TLS 1.3 with grpc's defaults
	CertPEM  []byte
}

// Windows and workers as the node sets them.
const (
	benchStreamWindow = 8 << 20
	benchConnWindow   = 16 << 20
)

func benchServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.InitialWindowSize(benchStreamWindow), grpc.InitialConnWindowSize(benchConnWindow),
		grpc.NumStreamWorkers(uint32(4 * runtime.GOMAXPROCS(0))),
	}
}

func benchDialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithInitialWindowSize(benchStreamWindow), grpc.WithInitialConnWindowSize(benchConnWindow)}
}

// runBenchServer serves all arms until standard input ends.
func runBenchServer() error {
	out := benchServers{Network: p2ptest.Network()}
	n := p2p.NewNode("127.0.0.1:0", p2ptest.Options(out.Network)...)
	n.RegisterService(&benchDesc, nil)
	if err := n.StartServer(); err != nil {
		return err
	}
	defer n.Close()
	for _, a := range n.Addrs() {
		out.Node = append(out.Node, a.String())
	}
	for range idleNeighbors {
		n := p2p.NewNode("127.0.0.1:0", p2ptest.Options(out.Network)...)
		n.RegisterService(&benchDesc, nil)
		if err := n.StartServer(); err != nil {
			return err
		}
		defer n.Close()
		out.Idle = append(out.Idle, n.Addrs()[0].String())
	}
	raw, err := rawHost()
	if err != nil {
		return err
	}
	defer raw.Close()
	raw.SetStreamHandler(rawProtocol, rawEcho)
	addrs, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: raw.ID(), Addrs: raw.Addrs()})
	if err != nil {
		return err
	}
	for _, a := range addrs {
		out.Raw = append(out.Raw, a.String())
	}

	cert, der, err := benchCert()
	if err != nil {
		return err
	}
	out.CertPEM = der
	creds := grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}))
	for addr, opts := range map[*string][]grpc.ServerOption{&out.Same: append(benchServerOptions(), creds), &out.Defaults: {creds}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s := grpc.NewServer(opts...)
		s.RegisterService(&benchDesc, nil)
		go func() { _ = s.Serve(l) }()
		defer s.Stop()
		*addr = l.Addr().String()
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// rawHost is a node's host without its limits, which are for streams of RPCs and not for one stream a call.
func rawHost() (corehost.Host, error) {
	return host.New(host.Config{
		Listen: []string{"127.0.0.1:0"},
		Libp2p: []libp2p.Option{libp2p.ResourceManager(&network.NullResourceManager{})},
	})
}

func rawEcho(s network.Stream) {
	defer s.Close()
	_ = copyFrames(s)
}

func copyFrames(s network.Stream) error {
	var head [4]byte
	buf := make([]byte, 1<<20)
	for {
		if _, err := io.ReadFull(s, head[:]); err != nil {
			return err
		}
		size := binary.BigEndian.Uint32(head[:])
		if int(size)+4 > len(buf) {
			return io.ErrShortBuffer
		}
		copy(buf, head[:])
		if _, err := io.ReadFull(s, buf[4:4+size]); err != nil {
			return err
		}
		if _, err := s.Write(buf[:4+size]); err != nil {
			return err
		}
	}
}

func benchCert() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, der, err
}

// An arm is one of the ways compared.
type arm struct {
	name string
	cc   grpc.ClientConnInterface // nil: the raw stream
	raw  func(ctx context.Context) (network.Stream, error)
}

// startBenchServer starts the server process, which ends with the benchmark.
func startBenchServer(b *testing.B) benchServers {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), benchServerEnv+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	var srv benchServers
	if err := json.NewDecoder(stdout).Decode(&srv); err != nil {
		b.Fatal(err)
	}
	return srv
}

// dialPlain opens a channel of plain gRPC over TLS 1.3.
func (srv benchServers) dialPlain(b *testing.B, addr string, opts ...grpc.DialOption) *grpc.ClientConn {
	b.Helper()
	cert, err := x509.ParseCertificate(srv.CertPEM)
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	creds := grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}))
	cc, err := grpc.NewClient("passthrough:///"+addr, append(opts, creds)...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cc.Close() })
	return cc
}

// benchArms starts the servers and connects to each of them. The baseline is first.
func benchArms(b *testing.B) []arm {
	b.Helper()
	srv := startBenchServer(b)
	arms := []arm{
		{name: "grpc-tls", cc: srv.dialPlain(b, srv.Same, benchDialOptions()...)},
		{name: "grpc-tls-defaults", cc: srv.dialPlain(b, srv.Defaults)},
	}
	for _, t := range []struct {
		name string
		code int
	}{{"tcp", ma.P_TCP}, {"quic", ma.P_QUIC_V1}} {
		n := p2p.NewNode("127.0.0.1:0", p2ptest.Options(srv.Network)...)
		if err := n.StartServer(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = n.Close() })
		target := withProtocol(b, srv.Node, t.code)
		if err := n.Connect(b.Context(), target.String()); err != nil {
			b.Fatal(err)
		}
		h, err := rawHost()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = h.Close() })
		raw, err := peer.AddrInfoFromP2pAddr(withProtocol(b, srv.Raw, t.code))
		if err != nil {
			b.Fatal(err)
		}
		if err := h.Connect(b.Context(), *raw); err != nil {
			b.Fatal(err)
		}
		arms = append(arms,
			arm{name: t.name, cc: n.Peer(target.String())},
			arm{name: "raw-" + t.name, raw: func(ctx context.Context) (network.Stream, error) { return h.NewStream(ctx, raw.ID, rawProtocol) }})
	}
	return arms
}

// withProtocol returns the first address that has the protocol.
func withProtocol(b *testing.B, addrs []string, code int) ma.Multiaddr {
	b.Helper()
	for _, s := range addrs {
		if a := ma.StringCast(s); a != nil {
			if _, err := a.ValueForProtocol(code); err == nil {
				return a
			}
		}
	}
	b.Fatalf("no address of %v has protocol %d", addrs, code)
	return nil
}
