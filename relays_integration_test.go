package p2p_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/p2ptest"
	"github.com/lynn9388/p2p/protocols/nodeinfo"
)

// logText is a log that is read while it is written.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestWAN_SaysWhoAnswersAtARelayWithoutAnID(t *testing.T) {
	network := p2ptest.Network()
	relay := p2p.NewNode("localhost:0", append(p2ptest.Options(network), p2p.Relay(), p2p.WithOpen())...)
	start(t, relay)
	for place, complete := range map[string]string{
		"localhost:" + port(t, relay):           relay.ID().String() + "@localhost:" + port(t, relay),
		"/ip4/127.0.0.1/tcp/" + port(t, relay):  "/ip4/127.0.0.1/tcp/" + port(t, relay) + "/p2p/" + relay.ID().String(),
		"/dns4/localhost/tcp/" + port(t, relay): "/dns4/localhost/tcp/" + port(t, relay) + "/p2p/" + relay.ID().String(),
		"[::ffff:127.0.0.1]:" + port(t, relay):  relay.ID().String() + "@[::ffff:127.0.0.1]:" + port(t, relay),
	} {
		n := p2p.NewNode("localhost:0", append(p2ptest.Options(network), p2p.WAN(place), p2p.WithOpen())...)
		if err := n.StartServer(); err == nil || !strings.HasSuffix(err.Error(), "write: "+complete) {
			t.Errorf("%s: %v, want an error that ends in %q", place, err, complete)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestWAN_SaysThatNobodyAnswersAtARelayWithoutAnID(t *testing.T) {
	t.Parallel()             // it waits for an answer over UDP
	const at = "127.0.0.1:1" // nobody is given this port
	n := p2p.NewNode("localhost:0", append(p2ptest.Options(p2ptest.Network()), p2p.WAN(at), p2p.WithOpen())...)
	if err := n.StartServer(); err == nil || !strings.Contains(err.Error(), "write ID@"+at) || !strings.Contains(err.Error(), "nobody answered") {
		t.Errorf("%v, want an error with the form to write", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// TestRelay_CarriesAndDoesNotCall is for T29: being connected is not being trusted.
func TestRelay_CarriesAndDoesNotCall(t *testing.T) {
	network := p2ptest.Network()
	key, id := nodetest.NewKey(t)
	relay := p2p.NewNode("localhost:0", append(p2ptest.Options(network), p2p.Relay(), p2p.WithOpen(), p2p.WithIdentity(key))...)
	start(t, relay)
	place := relay.ID().String() + "@localhost:" + port(t, relay)
	list := filepath.Join(t.TempDir(), "allowed.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, friend := nodetest.NewKey(t)
	write(friend.String() + " a friend\n")
	var log logText
	n := p2p.NewNode("localhost:0", append(p2ptest.Options(network), p2p.WAN(place), p2p.WithAllowFile(list),
		p2p.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))...)
	pb.RegisterGreeterServiceServer(n, nodetest.Greeter{})
	n.RegisterService(&benchDesc, nil)
	start(t, n)
	if _, err := nodeinfo.Get(t.Context(), n.Peer(place)); err != nil {
		t.Fatalf("the node cannot call its relay: %v", err)
	}
	target := relay.Peer(n.Addrs()[0].String())
	unary := func(method string) error {
		return target.Invoke(t.Context(), method, new(wrapperspb.BytesValue), new(wrapperspb.BytesValue))
	}
	stream := func(method string) error {
		s, err := target.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
		if err == nil {
			err = s.RecvMsg(new(wrapperspb.BytesValue))
		}
		return err
	}
	called := 0
	for service, info := range registeredServices(t, n) {
		for _, m := range info.Methods {
			call := unary
			if m.IsClientStream || m.IsServerStream {
				call = stream
			}
			called++
			if err := call("/" + service + "/" + m.Name); status.Code(err) != codes.PermissionDenied {
				t.Errorf("a relay calls %s/%s: %v, want PermissionDenied", service, m.Name, err)
			}
		}
	}
	if called < 10 {
		t.Errorf("%d methods were tried: want all, those that every node has included", called)
	}
	for _, method := range []string{"/hello.v1.GreeterService/Nothing", "/no.Such/Method", "/p2p.control.v1.ControlService/Status"} {
		if err := unary(method); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a relay calls %s, which is not there: %v, want PermissionDenied", method, err)
		}
	}
	if text := log.String(); !strings.Contains(text, `msg="refused a call" peer=`+id.String()) || !strings.Contains(text, "may carry") {
		t.Errorf("the log does not say what was refused, and why:\n%s", text)
	}
	// Once it is listed it calls as others do.
	write(friend.String() + "\n" + id.String() + "\n")
	poll.Until(t, 10*time.Second, func() string {
		if _, err := nodetest.Greet(t, target); err != nil {
			return err.Error()
		}
		return ""
	})
}

// registeredServices are the services of a node, those included that every node has.
func registeredServices(t *testing.T, n *p2p.Node) map[string]grpc.ServiceInfo {
	t.Helper()
	out := make(map[string]grpc.ServiceInfo)
	services, err := nodeinfo.List(t.Context(), n.Peer(n.ID().String()))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range services {
		var info grpc.ServiceInfo
		for _, m := range s.GetMethods() {
			info.Methods = append(info.Methods, grpc.MethodInfo{Name: m.GetName(), IsClientStream: m.GetClientStreaming(), IsServerStream: m.GetServerStreaming()})
		}
		out[s.GetName()] = info
	}
	return out
}
