package p2p_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p/p2ptest"
	"github.com/lynn9388/p2p/protocols/pathinfo"
)

func TestNode_TellsPeersHowItSeesThem(t *testing.T) {
	nodes := p2ptest.Start(t, 2, nil)
	other := nodes[0].Peer(nodes[1].ID().String())
	v, ahead, err := pathinfo.Look(t.Context(), other, true)
	if err != nil {
		t.Fatal(err)
	}
	if v.Path != "direct" || v.Transport == "" || !strings.HasPrefix(v.SeenAt, "/ip") || v.NotDirect != "" || v.Reachability != "" || ahead.Abs() > 5*time.Second {
		t.Errorf("it sees %+v, its clock is %v ahead", v, ahead)
	}
	if len(v.Dialed) == 0 {
		t.Error("it has dialed no address")
	}
	for _, m := range v.Dialed {
		if m.Err != "" {
			t.Errorf("it did not get to %s: %s", m.Addr, m.Err)
		}
	}
	if _, _, err := pathinfo.Look(t.Context(), other, true); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a second question at once: %v, want ResourceExhausted", err)
	}
}
