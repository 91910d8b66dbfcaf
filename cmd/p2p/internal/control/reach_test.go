package control

import (
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"
)

// An address of a peer may have any bytes in it: that must not keep the others from being told of.
func TestTexts_AreFitForAMessage(t *testing.T) {
	a, err := ma.NewMultiaddr("/ip4/9.9.9.9/tcp/443/tls/sni/a\xffb/ws")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proto.Marshal(&Peer{Addrs: texts([]ma.Multiaddr{a})}); err != nil {
		t.Error(err)
	}
}
