//go:build linux

package p2p_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/internal/netns"
	"github.com/lynn9388/p2p/internal/pace"
	"github.com/lynn9388/p2p/p2ptest"
)

// partEnv in the environment names the part that a test's second process plays in a network namespace.
const partEnv = "P2P_TEST_PART"

// part is the part of this process in the test; "" in the test itself.
func part() string { return os.Getenv(partEnv) }

// A player is this test in a process of its own, in a host of a lab. It says things in lines, and is told things.
type player struct {
	t     *testing.T
	name  string
	in    io.WriteCloser
	lines chan string
	ended chan error
}

// play starts the test t as a process in host h, with the part that it has there.
func play(t *testing.T, h *netns.Host, part string, env ...string) *player {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) //nolint:usetesting // ended by the cleanup, in order
	cmd := h.Command(ctx, exe, "-test.run=^"+name+"$", "-test.v", "-test.count=1")
	cmd.Env = append(append(os.Environ(), partEnv+"="+part), env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &player{t: t, name: part, in: in, lines: make(chan string, 1000), ended: make(chan error, 1)}
	go p.listen(cmd, out)
	t.Cleanup(func() {
		_ = in.Close()
		select {
		case err := <-p.ended:
			t.Logf("%s ended: %v", part, err)
		case <-time.After(15 * time.Second):
			t.Errorf("%s does not end", part)
		}
		cancel()
	})
	return p
}

func (p *player) listen(cmd *exec.Cmd, out io.Reader) {
	scan := bufio.NewScanner(out)
	var log []string
	for scan.Scan() {
		if line, ok := strings.CutPrefix(scan.Text(), "> "); ok {
			p.lines <- line
			continue
		}
		log = append(log, scan.Text())
	}
	err := cmd.Wait()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", p.name, err, strings.Join(log, "\n"))
	}
	close(p.lines)
	p.ended <- err
	close(p.ended)
}

// hear returns the next thing that the player says.
func (p *player) hear(within time.Duration) string {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			p.t.Fatal(errors.Join(fmt.Errorf("%s ended", p.name), <-p.ended))
		}
		return line
	case <-time.After(within):
		p.t.Fatalf("%s says nothing for %v", p.name, within)
	}
	return ""
}

// tell tells the player something.
func (p *player) tell(line string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		p.t.Fatal(err)
	}
}

// finish waits for the player's own end, and fails the test when that failed.
func (p *player) finish(within time.Duration) {
	p.t.Helper()
	select {
	case err := <-p.ended:
		if err != nil {
			p.t.Error(err)
		}
	case <-time.After(within):
		p.t.Errorf("%s does not end within %v", p.name, within)
	}
}

// say tells the test something, from a part.
func say(format string, args ...any) { fmt.Fprintf(os.Stdout, "\n> "+format+"\n", args...) }

// told returns a function for the next line from the test, which is "" when there is nothing more.
func told() func() string {
	scan := bufio.NewScanner(os.Stdin)
	return func() string {
		if !scan.Scan() {
			return ""
		}
		return scan.Text()
	}
}

// flowDesc has a call for each way that bytes can go while a call is in flight.
var flowDesc = grpc.ServiceDesc{
	ServiceName: "test.Flow",
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{
		{StreamName: "idle", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			if err := s.SendMsg(new(emptypb.Empty)); err != nil {
				return err
			}
			<-s.Context().Done()
			return s.Context().Err()
		}},
		{StreamName: "downloading", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			return pump(s)
		}},
		{StreamName: "uploading", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			if err := s.SendMsg(new(emptypb.Empty)); err != nil {
				return err
			}
			var err error
			for err == nil {
				err = s.RecvMsg(new(wrapperspb.BytesValue))
			}
			return err
		}},
	},
}

// pump sends messages of 64 KiB at 6 MB/s until it cannot; it leaves the machine's cores to others.
func pump(s interface{ SendMsg(any) error }) error {
	msg := wrapperspb.Bytes(make([]byte, 64<<10))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := s.SendMsg(msg); err != nil {
			return err
		}
		<-tick.C
	}
}

// T12: the packets of a host are lost, both ways and in silence, under calls in flight.
func TestHalfOpen_CallsInFlightEnd(t *testing.T) {
	switch part() {
	case "server":
		halfOpenServer(t)
		return
	case "client":
		halfOpenClient(t)
		return
	}
	t.Parallel()
	lab := netns.New(t)
	bridge := lab.Bridge()
	away, here := bridge.Host(), bridge.Host()
	network := p2ptest.Network()
	server := play(t, away, "server", "P2P_TEST_NETWORK="+network)
	addrs := server.hear(20 * time.Second)
	client := play(t, here, "client", "P2P_TEST_NETWORK="+network, "P2P_TEST_ADDRS="+addrs)
	if got := client.hear(30 * time.Second); got != "all six run" {
		t.Fatal(got)
	}
	away.Cut("eth0")
	client.tell("cut")
	limit := pace.Of(15*time.Second, 20*time.Second)
	for range 6 {
		var r halfOpenResult
		line := client.hear(40 * time.Second)
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		t.Logf("%s over %s ended after %v: %s", r.Flow, r.Transport, r.Took.Round(time.Millisecond), r.Err)
		if r.Took > limit || codes.Code(r.Code) != codes.Unavailable || r.Err == "" {
			t.Errorf("%s over %s ended after %v with %v: %s; want Unavailable within %v", r.Flow, r.Transport, r.Took, codes.Code(r.Code), r.Err, limit)
		}
	}
	client.finish(10 * time.Second)
}

type halfOpenResult struct {
	Flow, Transport, Err string
	Code                 uint32
	Took                 time.Duration
}

func halfOpenServer(t *testing.T) {
	n := p2p.NewNode(":0", p2ptest.Options(os.Getenv("P2P_TEST_NETWORK"))...)
	n.RegisterService(&flowDesc, nil)
	start(t, n)
	var addrs []string
	for _, a := range n.Addrs() {
		if s := a.String(); strings.HasPrefix(s, "/ip4/10.") {
			addrs = append(addrs, s)
		}
	}
	say("%s", strings.Join(addrs, " "))
	told()()
}

// halfOpenClient has a node for each of the six, so that each has a connection of its own over its transport.
func halfOpenClient(t *testing.T) {
	type flow struct {
		halfOpenResult
		stream grpc.ClientStream
		ended  chan error
	}
	var flows []*flow
	for addr := range strings.FieldsSeq(os.Getenv("P2P_TEST_ADDRS")) {
		transport := "tcp"
		if strings.Contains(addr, "/quic-v1") {
			transport = "quic-v1"
		}
		for i := range flowDesc.Streams {
			n := p2p.NewNode(":0", p2ptest.Options(os.Getenv("P2P_TEST_NETWORK"))...)
			start(t, n)
			desc := &flowDesc.Streams[i]
			s, err := n.Peer(addr).NewStream(t.Context(), desc, "/test.Flow/"+desc.StreamName)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.RecvMsg(new(emptypb.Empty)); err != nil {
				t.Fatal(err)
			}
			for _, c := range n.Host().Network().Conns() {
				if got := grpcstream.PeerOf(c).Transport; got != transport {
					t.Fatalf("%s goes over %s", addr, got)
				}
			}
			f := &flow{halfOpenResult{Flow: desc.StreamName, Transport: transport}, s, make(chan error, 1)}
			flows = append(flows, f)
			if f.Flow == "uploading" {
				go func() { _ = pump(s) }()
			}
			go func() {
				var err error
				for msg := new(wrapperspb.BytesValue); err == nil; {
					err = s.RecvMsg(msg)
				}
				f.ended <- err
			}()
		}
	}
	if len(flows) != 6 {
		t.Fatalf("%d flows", len(flows))
	}
	time.Sleep(time.Second) // they flow
	next := told()
	say("all six run")
	if next() != "cut" {
		return
	}
	cut := time.Now()
	done := make(chan struct{})
	for _, f := range flows {
		go func() {
			err := <-f.ended
			f.Took, f.Err, f.Code = time.Since(cut), fmt.Sprint(err), uint32(status.Code(err))
			done <- struct{}{}
		}()
	}
	for range flows {
		<-done
	}
	for _, f := range flows {
		line, err := json.Marshal(f.halfOpenResult)
		if err != nil {
			t.Fatal(err)
		}
		say("%s", line)
	}
}
