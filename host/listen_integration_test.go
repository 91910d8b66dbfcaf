package host

import (
	"errors"
	"fmt"
	"net"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
)

// libp2p keeps the UDP socket of a listener that was closed: a host that binds it beside a TCP port that is lost would
// keep the UDP half from everybody.
func TestBind_LeavesTheUDPHalfOfALostPortFree(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	port := portNumber(l.Addr())
	tcp, udp := ma.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)), ma.StringCast(fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", port))
	var taken *PortTakenError
	if _, err := bind(h, "asked", []ma.Multiaddr{udp, tcp}, 2); !errors.As(err, &taken) || taken.Network != "TCP" {
		t.Errorf("error %v, want one of the TCP port", err)
	}
	c, err := claim(udp)
	if err != nil {
		t.Fatalf("the UDP half: %v", err)
	}
	_ = c.Close()
}
