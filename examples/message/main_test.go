package main

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/p2ptest"
)

func TestSend(t *testing.T) {
	var taken strings.Builder
	nodes := p2ptest.Start(t, 2, func(i int, n *p2p.Node) {
		if i == 0 {
			take(n, &taken)
		}
	})
	words, err := send(t.Context(), nodes[1], nodes[0].ID().String(), "Good morning")
	if err != nil || words != 2 {
		t.Errorf("%d words, %v", words, err)
	}
	if want := fmt.Sprintf("%s: \"Good morning\"\n", nodes[1].ID()); taken.String() != want {
		t.Errorf("it printed %q, want %q", taken.String(), want)
	}
	if _, err := send(t.Context(), nodes[1], nodes[0].ID().String(), ""); status.Code(err) != codes.Unknown || !strings.Contains(err.Error(), "an empty note") {
		t.Errorf("an empty note: %v", err)
	}
	if _, err := send(t.Context(), nodes[0], nodes[1].ID().String(), "x"); status.Code(err) != codes.Unimplemented {
		t.Errorf("to a node that takes none: %v", err)
	}
}
