package host

import (
	"errors"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/localport"
)

// libp2p keeps the UDP socket of a listener that was closed: a host that binds it beside a TCP port that is lost would
// keep the UDP half from everybody.
func TestBind_LeavesTheUDPHalfOfALostPortFree(t *testing.T) {
	l, half, port, err := localport.Both()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_ = half.Close()
	h, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	tcp, udp := ma.StringCast("/ip4/127.0.0.1/tcp/"+port), ma.StringCast("/ip4/127.0.0.1/udp/"+port+"/quic-v1")
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
