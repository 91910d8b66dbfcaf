package p2p_test

import (
	"net"
	"strings"
	"testing"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/p2ptest"
)

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
	t.Parallel() // it waits for an answer over UDP
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	n := p2p.NewNode("localhost:0", append(p2ptest.Options(p2ptest.Network()), p2p.WAN(at), p2p.WithOpen())...)
	if err := n.StartServer(); err == nil || !strings.Contains(err.Error(), "write ID@"+at) || !strings.Contains(err.Error(), "nobody answered") {
		t.Errorf("%v, want an error with the form to write", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}
