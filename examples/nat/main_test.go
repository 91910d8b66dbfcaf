package main

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/p2ptest"
)

func TestGreet_BeginsAtTheRelayAndGoesOnDirectly(t *testing.T) {
	if got := greetBetween(t, hosttest.PortRestricted, hosttest.PortRestricted); !regexp.MustCompile(
		`(?s)\A"Hello Ada, you call .*\n"Hello Ada, you call directly, over quic-v1" \(after \S+\)\n\z`).MatchString(got) {
		t.Errorf("the last call is not direct:\n%s", got)
	}
}

func TestGreet_SaysWhyItStaysAtTheRelay(t *testing.T) {
	got := greetBetween(t, hosttest.Symmetric, hosttest.Symmetric)
	if strings.Count(got, "Hello Ada, you call through the relay 12D3Koo") != 5 || !strings.Contains(got, "is not reached directly: ") {
		t.Errorf("want five calls through the relay, and why:\n%s", got)
	}
}

// greetBetween makes five calls between nodes behind two routers, and returns what was printed.
func greetBetween(t *testing.T, from, to hosttest.RouterKind) string {
	t.Helper()
	var out strings.Builder
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		net.Latency(15 * time.Millisecond)
		relay := net.Router(hosttest.Open).Node(p2p.Relay(), p2p.WithOpen())
		if err := relay.StartServer(); err != nil {
			t.Fatal(err)
		}
		place := relay.Addrs()[0].String()
		server := net.Router(to).Node(p2p.WAN(place), p2p.WithOpen())
		pb.RegisterGreeterServiceServer(server, greeter{})
		if err := server.StartServer(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := greet(ctx, &out, net.Router(from).Node(p2p.WAN(place), p2p.WithOpen()), 5); err != nil {
			t.Fatal(err)
		}
	})
	return out.String()
}
