package rootless_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/internal/pace"
	"github.com/lynn9388/p2p/p2ptest"
)

// reasonOf returns the reason that a status names.
func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// A relay carries for those on its list and is none that they let call.
func TestWAN_RelayCarriesAndDoesNotCall(t *testing.T) {
	t.Parallel()
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		net.Latency(15 * time.Millisecond)
		keyA, idA := nodetest.NewKey(t)
		keyB, idB := nodetest.NewKey(t)
		w := &wan{Net: net, t: t}
		w.relay = net.Router(hosttest.Open).Node(p2p.Relay(), p2p.WithAllow(idA, idB))
		w.mustStart(w.relay)
		node := func(name string, opts ...p2p.Option) *p2p.Node {
			n := net.Router(hosttest.Symmetric).Node(append(opts, p2p.WAN(place(w.relay)), p2p.WithAllow(idA, idB))...)
			pb.RegisterGreeterServiceServer(n, nodetest.Greeter{Who: name})
			w.mustStart(n)
			return n
		}
		a, b := node("a", p2p.WithIdentity(keyA)), node("b", p2p.WithIdentity(keyB))
		w.mustGreet(a, b)
		if p := peerOf(a, b.ID()); p.Path != "relay" || p.Relay != w.relay.ID() {
			t.Errorf("path %q through %s", p.Path, p.Relay)
		}
		if _, err := nodetest.Greet(t, w.relay.Peer(b.ID().String())); status.Code(err) != codes.PermissionDenied {
			t.Errorf("the relay called: %v", err)
		}
		stranger := node("stranger")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := nodetest.SayHello(ctx, stranger.Peer(b.ID().String())); err == nil {
			t.Error("a stranger called through the relay")
		}
		w.Await(time.Second, func() string { // it tries again and again, and is told after the handshake
			if len(stranger.Host().Network().Conns()) > 0 {
				return "a stranger keeps a connection"
			}
			return ""
		})
	})
}

// What a relay does not carry any further is told by name.
func TestWAN_RelayLimitIsNamed(t *testing.T) {
	t.Parallel()
	inWAN(t, func(t *testing.T, w *wan) {
		tight := w.Router(hosttest.Open).Node(p2p.WithLibp2pOptions(
			libp2p.ForceReachabilityPublic(),
			libp2p.EnableRelayService(relay.WithLimit(&relay.RelayLimit{Data: 256 << 10, Duration: time.Hour})),
		))
		w.mustStart(tight)
		through := p2p.WAN(place(tight))
		a, b := w.node(w.Router(hosttest.Symmetric), "a", through), w.node(w.Router(hosttest.Symmetric), "b", through)
		w.mustGreet(a, b)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		large := &pb.GreetRequest{Name: strings.Repeat("x", 1<<20)}
		_, err := pb.NewGreeterServiceClient(a.Peer(b.ID().String())).Greet(ctx, large)
		if status.Code(err) != codes.Unavailable || reasonOf(err) != "RELAY_LIMIT" || !strings.Contains(err.Error(), tight.ID().String()) {
			t.Errorf("a call of more than the relay carries: reason %q, %v", reasonOf(err), err)
		}
		t.Log(err)
		t.Logf("called after %v", w.greetsWithin(recovery, a, b))
	})
}

// A stream over a relay lasts, busy or not, and needs no help for it.
func TestWAN_StreamOverTheRelayLasts(t *testing.T) {
	t.Parallel()
	inWAN(t, func(t *testing.T, w *wan) {
		a, b := w.node(w.Router(hosttest.Symmetric), "a"), w.node(w.Router(hosttest.Symmetric), "b")
		desc := echoDesc()
		s, err := a.Peer(b.ID().String()).NewStream(t.Context(), &desc.Streams[0], "/"+desc.ServiceName+"/Talk")
		if err != nil {
			t.Fatal(err)
		}
		for i, pause := range []time.Duration{0, time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, 0} {
			time.Sleep(pause)
			var m wrapperspb.Int64Value
			if err := errors.Join(s.SendMsg(wrapperspb.Int64(int64(i))), s.RecvMsg(&m)); err != nil || m.GetValue() != int64(i) {
				t.Fatalf("after a pause of %v: %d, error %v", pause, m.GetValue(), err)
			}
		}
		if p := peerOf(a, b.ID()); p.Path != "relay" {
			t.Errorf("path %q", p.Path)
		}
		if err := s.CloseSend(); err != nil {
			t.Error(err)
		}
	})
}

// An office behind one address joins through one relay.
func TestWAN_ManyBehindOneAddress(t *testing.T) {
	t.Parallel()
	inWAN(t, func(t *testing.T, w *wan) {
		office := w.Router(hosttest.PortRestricted)
		begin := time.Now()
		nodes := make([]*p2p.Node, pace.Of(100, 30))
		for i := range nodes {
			nodes[i] = w.node(office, "office")
		}
		w.Await(30*time.Second, func() string {
			for _, n := range nodes {
				if what := reserved(n, w.relay); what != "" {
					return what
				}
			}
			return ""
		})
		t.Logf("%d nodes have their reservation after %v", len(nodes), time.Since(begin))
		outside := w.node(w.Router(hosttest.PortRestricted), "outside")
		var wg sync.WaitGroup
		errs := make([]error, len(nodes))
		for i, n := range nodes {
			wg.Go(func() { _, errs[i] = nodetest.Greet(t, outside.Peer(n.ID().String())) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
	})
}
