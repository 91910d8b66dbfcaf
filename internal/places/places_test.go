package places

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestPlaces(t *testing.T) {
	s := Places{All: 10, Each: 3}
	for i := range s.Each {
		if !s.Take("a") {
			t.Fatalf("number %d of one peer is refused", i)
		}
	}
	if s.Take("a") {
		t.Error("one peer takes more than its part")
	}
	for i := range s.All - s.Each {
		if !s.Take(peer.ID(fmt.Sprint(i))) {
			t.Fatalf("number %d of the others is refused", i)
		}
	}
	if s.Take("one more") {
		t.Error("one more is let in")
	}
	for range s.Each {
		s.Give("a")
	}
	for i := range s.All - s.Each {
		s.Give(peer.ID(fmt.Sprint(i)))
	}
	if s.taken != 0 || len(s.of) != 0 {
		t.Errorf("%d remain, of %v", s.taken, s.of)
	}
}
