package p2p_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/internal/pace"
	"github.com/lynn9388/p2p/p2ptest"
)

// An offender is a peer that looks like a node of the network and does on its tunnels as it likes. All of them together
// must take nothing from the other callers.
type offender struct {
	name string
	// act is done on a tunnel to the node; it may go on until the stream ends.
	act func(s io.ReadWriter)
	// letGo is until when the node must have ended the tunnel; 0 where the peer does no harm by staying.
	letGo time.Duration
	// reads tells that the offender reads what it is sent.
	reads bool
}

func offenders() []offender {
	garbage := bytes.Repeat([]byte("GET / HTTP/1.1\r\n\xff\x00"), 1000)
	return []offender{
		{"silent", func(io.ReadWriter) {}, 8 * time.Second, true},
		{"garbage", func(s io.ReadWriter) { _, _ = s.Write(garbage) }, 8 * time.Second, true},
		{"garbage after the preface", func(s io.ReadWriter) { _, _ = s.Write(append(h2Preface(), garbage...)) }, 8 * time.Second, true},
		{"a byte a second", func(s io.ReadWriter) { dribble(context.Background(), s, h2Preface()) }, 8 * time.Second, true},
		{"a byte a second of a call", func(s io.ReadWriter) {
			_, _ = s.Write(h2Preface())
			dribble(context.Background(), s, h2Call("/hello.v1.GreeterService/Greet"))
		}, 8 * time.Second, true},
		{"never reads", func(s io.ReadWriter) {
			_, _ = s.Write(append(h2Preface(), h2Call("/bench.Bench/Down")...))
			_, _ = s.Write(h2Message([]byte{8, 0x80, 0x80, 0x40})) // one MiB a message
		}, 12 * time.Second, false},
		{"a length prefix of 1 GiB", func(s io.ReadWriter) {
			_, _ = s.Write(append(h2Preface(), h2Call("/hello.v1.GreeterService/Greet")...))
			_, _ = s.Write(h2Data(binary.BigEndian.AppendUint32([]byte{0}, 1<<30)))
		}, 0, true},
	}
}

// h2Preface is how a client begins HTTP/2: it can receive all there is, and acknowledges the server's SETTINGS unread.
func h2Preface() []byte {
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&b, nil)
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: math.MaxInt32})
	_ = f.WriteWindowUpdate(0, math.MaxInt32-65535)
	_ = f.WriteSettingsAck()
	return b.Bytes()
}

// h2Call begins a gRPC call on HTTP/2 stream 1.
func h2Call(method string) []byte {
	var b, block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: method},
		{Name: ":authority", Value: "x"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
	} {
		_ = enc.WriteField(h)
	}
	_ = http2.NewFramer(&b, nil).WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	return b.Bytes()
}

func h2Data(p []byte) []byte {
	var b bytes.Buffer
	_ = http2.NewFramer(&b, nil).WriteData(1, false, p)
	return b.Bytes()
}

// h2Message is a gRPC message, and the last one.
func h2Message(p []byte) []byte {
	var b bytes.Buffer
	_ = http2.NewFramer(&b, nil).WriteData(1, true, append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(p))), p...))
	return b.Bytes()
}

// dribble writes one byte a second, until it cannot or ctx ends.
func dribble(ctx context.Context, w io.Writer, p []byte) {
	for i := range p {
		if _, err := w.Write(p[i : i+1]); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// connectOffender connects a bare host to a node. It claims the tunnel protocol, so that the node takes it for one of
// its network; what it does on the tunnels that the node opens to it is serve.
func connectOffender(t *testing.T, n *p2p.Node, name string, serve func(network.Stream)) corehost.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	h.SetStreamHandler(grpcstream.TunnelProtocol(name), serve)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := h.Connect(ctx, peer.AddrInfo{ID: n.ID(), Addrs: n.Host().Addrs()}); err != nil {
		t.Fatal(err)
	}
	return h
}

// offend opens a tunnel to the node and begins to misbehave on it. ended yields when the node ended the tunnel.
func offend(t *testing.T, n *p2p.Node, h corehost.Host, name string, o offender) (ended <-chan time.Time) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := h.NewStream(ctx, n.ID(), grpcstream.TunnelProtocol(name))
	if err != nil {
		t.Fatal(err)
	}
	var over sync.WaitGroup
	t.Cleanup(func() {
		_ = s.Reset()
		over.Wait()
	})
	done := make(chan time.Time, 1)
	over.Go(func() {
		acted := make(chan struct{})
		go func() {
			defer close(acted)
			o.act(s)
		}()
		if !o.reads {
			<-acted
			// The end of a stream is seen by writing, too.
			for {
				if _, err := s.Write(h2Ping()); err != nil {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
		} else {
			_, _ = io.Copy(io.Discard, s)
		}
		done <- time.Now()
		_ = s.Reset()
		<-acted
	})
	return done
}

func h2Ping() []byte {
	var b bytes.Buffer
	_ = http2.NewFramer(&b, nil).WritePing(false, [8]byte{})
	return b.Bytes()
}

// hostileNetwork is a node that offers services, and an honest one.
func hostileNetwork(t *testing.T, opts ...p2p.Option) (n, honest *p2p.Node, name string) {
	t.Helper()
	name = p2ptest.Network()
	opts = append(p2ptest.Options(name), opts...)
	n = p2p.NewNode("localhost:0", opts...)
	pb.RegisterGreeterServiceServer(n, nodetest.Greeter{Who: "x"})
	n.RegisterService(&benchDesc, nil)
	start(t, n)
	honest = p2p.NewNode("localhost:0", opts...)
	if err := honest.JoinNetwork(n.Addrs()[0].String()); err != nil {
		t.Fatal(err)
	}
	start(t, honest)
	mustGreet(t, honest.Peer(n.ID().String()))
	return n, honest, name
}

// slowestHonest is how long a call of one who behaves may take beside those who do not.
func slowestHonest() time.Duration { return pace.Of(3*time.Second, 10*time.Second) }

// callOn calls a node again and again until it is told to stop, and returns the longest call.
func callOn(t *testing.T, from, to *p2p.Node) (stop func() (calls int, longest time.Duration)) {
	t.Helper()
	var (
		quit    atomic.Bool
		calls   int
		longest time.Duration
		done    = make(chan struct{})
	)
	go func() {
		defer close(done)
		for !quit.Load() {
			began := time.Now()
			if _, err := nodetest.Greet(t, from.Peer(to.ID().String())); err != nil {
				t.Errorf("an honest caller: %v", err)
				return
			}
			calls++
			longest = max(longest, time.Since(began))
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return func() (int, time.Duration) {
		quit.Store(true)
		<-done
		return calls, longest
	}
}

func TestHostile_CallersAreLetGoWhileOthersAreServed(t *testing.T) {
	t.Parallel()
	n, honest, name := hostileNetwork(t)
	stop := callOn(t, honest, n)
	began := time.Now()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	var ends []<-chan time.Time
	for _, o := range offenders() {
		h := connectOffender(t, n, name, func(s network.Stream) { _ = s.Reset() })
		ends = append(ends, offend(t, n, h, name, o))
	}
	begun := time.Now()
	for i, o := range offenders() {
		if o.letGo == 0 {
			continue
		}
		select {
		case at := <-ends[i]:
			t.Logf("%s: let go %v after the first began, %v after the last", o.name, at.Sub(began).Round(time.Millisecond), at.Sub(begun).Round(time.Millisecond))
			if at.Sub(begun) > o.letGo {
				t.Errorf("%s: let go after %v, want %v", o.name, at.Sub(begun), o.letGo)
			}
		case <-time.After(2 * o.letGo):
			t.Errorf("%s: its tunnel is still there", o.name)
		}
	}
	calls, longest := stop()
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	grown := int64(after.Sys) - int64(before.Sys)
	t.Logf("%d honest calls, the longest took %v; the process took %d MiB more of the system", calls, longest, grown>>20)
	if calls < 20 || longest > slowestHonest() { // how many there are depends on the machine, that none waits does not
		t.Errorf("the honest caller got %d answers, the slowest after %v", calls, longest)
	}
	if grown > 300<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
}

// closeSlack is how long Close may take beyond its timeout: two seconds for calls to see that they are ended, and what a busy
// machine needs for the rest.
const closeSlack = 5 * time.Second

func TestHostile_CloseEndsWithinItsTimeout(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	n, honest, name := hostileNetwork(t, p2p.WithShutdownTimeout(timeout))
	hang := func(network.Stream) {}
	for _, o := range offenders() {
		_ = offend(t, n, connectOffender(t, n, name, hang), name, o)
	}
	mustGreet(t, honest.Peer(n.ID().String()))
	time.Sleep(300 * time.Millisecond) // the worst of them fill their windows
	began := time.Now()
	err := n.Close()
	d := time.Since(began)
	t.Logf("Close took %v: %v", d, err)
	if d > timeout+closeSlack {
		t.Errorf("Close took %v, want at most %v", d, timeout+closeSlack)
	}
	if c := n.Host().Network().Conns(); len(c) > 0 {
		t.Errorf("connections are left: %v", c)
	}
}

// A peer that offers a service and then does not speak as it should: the call fails with a reason, and soon.
func TestHostile_ServersFailTheCallAndNothingElse(t *testing.T) {
	t.Parallel()
	n, honest, name := hostileNetwork(t, p2p.WithShutdownTimeout(time.Second))
	servers := map[string]func(s network.Stream){
		"silent":  func(network.Stream) {},
		"closes":  func(s network.Stream) { _ = s.Close() },
		"resets":  func(s network.Stream) { _ = s.Reset() },
		"garbage": func(s network.Stream) { _, _ = s.Write(bytes.Repeat([]byte("no HTTP/2\r\n"), 1000)) },
		"a byte a second": func(s network.Stream) {
			var b bytes.Buffer
			_ = http2.NewFramer(&b, nil).WriteSettings()
			dribble(t.Context(), s, b.Bytes())
		},
		"HTTP/2, then silent": func(s network.Stream) {
			f := http2.NewFramer(s, nil)
			_ = f.WriteSettings()
			_ = f.WriteSettingsAck()
		},
	}
	stop := callOn(t, honest, n)
	var wg sync.WaitGroup
	for what, serve := range servers {
		h := connectOffender(t, n, name, serve)
		wg.Go(func() {
			began := time.Now()
			_, err := nodetest.Greet(t, n.Peer(h.ID().String()))
			t.Logf("%s, after %v: %v", what, time.Since(began).Round(time.Millisecond), err)
			if status.Code(err) != codes.Unavailable || time.Since(began) > 16*time.Second {
				t.Errorf("%s, after %v: %v, want Unavailable within 16 s", what, time.Since(began), err)
			}
		})
	}
	wg.Wait()
	if calls, longest := stop(); calls < 10 || longest > slowestHonest() {
		t.Errorf("the honest caller got %d answers, the slowest after %v", calls, longest)
	}
	began := time.Now()
	err := n.Close()
	if d := time.Since(began); d > time.Second+closeSlack {
		t.Errorf("Close took %v: %v", d, err)
	}
}

func TestClose_AnOpenStreamDoesNotHoldItUp(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	for _, timeout := range []time.Duration{0, timeout} {
		for _, side := range []string{"server", "client"} {
			t.Run(fmt.Sprintf("%s/%v", side, timeout), func(t *testing.T) {
				t.Parallel()
				n, honest, _ := hostileNetwork(t, p2p.WithShutdownTimeout(timeout))
				s, err := honest.Peer(n.ID().String()).NewStream(t.Context(), &benchDesc.Streams[0], "/bench.Bench/Down")
				if err != nil {
					t.Fatal(err)
				}
				// The server waits for the request, which never comes: the stream is open, and idle.
				mustGreet(t, honest.Peer(n.ID().String()))
				closing := n
				if side == "client" {
					closing = honest
				}
				began := time.Now()
				err = closing.Close()
				d := time.Since(began)
				t.Logf("Close took %v: %v", d, err)
				if d > timeout+closeSlack {
					t.Errorf("Close took %v, want at most %v", d, timeout+closeSlack)
				}
				if err := s.RecvMsg(new(wrapperspb.BytesValue)); err == nil {
					t.Error("the stream goes on")
				}
			})
		}
	}
}
