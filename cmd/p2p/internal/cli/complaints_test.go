package cli

import (
	"bytes"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p"
)

func TestComplaints_HoldAsLongAsThePeerDoesNotAnswer(t *testing.T) {
	var c complaints
	silent := p2p.PeerInfo{ID: "silent", State: p2p.StateKnown, LastError: "no answer within 3s"}
	if got, want := c.about([]p2p.PeerInfo{silent, {ID: "fine", State: p2p.StateKnown}}), []string{"found " + silent.ID.String() + ", which does not answer: no answer within 3s"}; !cmp.Equal(got, want) {
		t.Errorf("before it was complained of: %q, want %q", got, want)
	}
	c.note(p2p.PeerEvent{Kind: p2p.PeerUnreachable, Peer: silent, Err: errors.New("open port 9388")})
	c.note(p2p.PeerEvent{Kind: p2p.PeerUnreachable, Peer: p2p.PeerInfo{ID: "other"}})
	for _, state := range []p2p.PeerState{p2p.StateKnown, p2p.StateConnecting} {
		silent.State = state
		if got, want := c.about([]p2p.PeerInfo{silent}), []string{"open port 9388"}; !cmp.Equal(got, want) {
			t.Errorf("%s: %q, want %q", state, got, want)
		}
	}
	silent.State = p2p.StateNeighbor
	if got := c.about([]p2p.PeerInfo{silent}); len(got) > 0 {
		t.Errorf("a neighbor: %q", got)
	}
	silent.State = p2p.StateKnown
	if got := c.about([]p2p.PeerInfo{silent}); len(got) != 1 || strings.Contains(got[0], "9388") {
		t.Errorf("an old complaint came back: %q", got)
	}
}

func TestComplaints_AreBounded(t *testing.T) {
	var c complaints
	for i := range 3 * maxComplaints {
		c.note(p2p.PeerEvent{Peer: p2p.PeerInfo{ID: peer.ID(strconv.Itoa(i))}, Err: errors.New("open a port")})
	}
	if len(c.said) > maxComplaints {
		t.Errorf("%d complaints are kept", len(c.said))
	}
}

func TestDebugOnly(t *testing.T) {
	var out bytes.Buffer
	log := debugOnly(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))).With("source", "mdns").WithGroup("g")
	log.Warn("said by the command itself")
	log.Info("said by the command itself")
	if out.Len() > 0 {
		t.Errorf("it logged %s", out.String())
	}
	log.Debug("detail")
	if !strings.Contains(out.String(), "detail") {
		t.Error("it did not log a detail")
	}
}
