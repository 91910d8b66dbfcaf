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

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
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

// benchServers is what the server process tells of itself.
type benchServers struct {
	Node     []string // multiaddrs with /p2p/ID
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
	n.Host().SetStreamHandler(rawProtocol, rawEcho)

	cert, der, err := benchCert()
	if err != nil {
		return err
	}
	out.CertPEM = der
	creds := grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}))
	for addr, opts := range map[*string][]grpc.ServerOption{&out.Same: append(benchServerOptions(), creds), &out.Defaults: {creds}} {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it opens at once
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

// benchArms starts the servers and connects to each of them. The baseline is first.
func benchArms(b *testing.B) []arm {
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

	pool := x509.NewCertPool()
	cert, err := x509.ParseCertificate(srv.CertPEM)
	if err != nil {
		b.Fatal(err)
	}
	pool.AddCert(cert)
	creds := grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}))
	plain := func(name, addr string, opts ...grpc.DialOption) arm {
		cc, err := grpc.NewClient("passthrough:///"+addr, append(opts, creds)...)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = cc.Close() })
		return arm{name: name, cc: cc}
	}
	arms := []arm{plain("grpc-tls", srv.Same, benchDialOptions()...), plain("grpc-tls-defaults", srv.Defaults)}
	for transport, code := range map[string]int{"tcp": ma.P_TCP, "quic": ma.P_QUIC_V1} {
		n := p2p.NewNode("127.0.0.1:0", p2ptest.Options(srv.Network)...)
		if err := n.StartServer(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = n.Close() })
		for _, a := range srv.Node {
			info, err := peer.AddrInfoFromString(a)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := info.Addrs[0].ValueForProtocol(code); err != nil {
				continue
			}
			if err := n.Connect(b.Context(), a); err != nil {
				b.Fatal(err)
			}
			arms = append(arms,
				arm{name: transport, cc: n.Peer(info.ID.String())},
				arm{name: "raw-" + transport, raw: func(ctx context.Context) (network.Stream, error) {
					return n.Host().NewStream(ctx, info.ID, rawProtocol)
				}})
			break
		}
	}
	if len(arms) != 6 {
		b.Fatalf("the server's addresses %v have no TCP or no QUIC", srv.Node)
	}
	return arms
}
