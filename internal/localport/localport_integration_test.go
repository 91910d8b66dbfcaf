package localport_test

import (
	"net"
	"testing"

	"github.com/lynn9388/p2p/internal/localport"
)

func TestBoth_HaveOneNumber(t *testing.T) {
	stream, packets, port, err := localport.Both()
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	defer packets.Close()
	if tcp, udp := stream.Addr().String(), packets.LocalAddr().String(); tcp != udp || tcp != "127.0.0.1:"+port {
		t.Errorf("TCP at %s, UDP at %s", tcp, udp)
	}
}

func TestFree_CanBeListenedAt(t *testing.T) {
	port, err := localport.Free()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		stream, err := net.Listen("tcp4", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		packets, err := net.ListenPacket("udp4", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = stream.Close(), packets.Close()
	}
}
