package p2p

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/host"
)

// logOf returns refusals and the lines that they have written.
func logOf(t *testing.T) (*refusals, func() []string) {
	t.Helper()
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	return newRefusals(func() *slog.Logger { return log }), func() []string {
		defer out.Reset()
		return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	}
}

func callOf(p peer.ID, method string) grpcstream.Call {
	return grpcstream.Call{Peer: grpcstream.Peer{ID: p, Path: grpcstream.PathRelay}, Method: method}
}

func TestRefusals_SayWhoWhatAndWhy(t *testing.T) {
	r, lines := logOf(t)
	r.peer(host.Refusal{Peer: "a", Addr: ma.StringCast("/ip4/192.0.2.1/tcp/1"), Direction: network.DirInbound, Reason: "connection: not on the allow list"})
	r.call(callOf("a", "/x.Y/Z"), errors.New("not today\x1b[2J"))
	r.call(callOf("a", ""), errUnlisted)
	r.call(callOf("b", "/x.Y/Z"), errCarrier)
	got := lines()
	for i, want := range [][]string{
		{"level=WARN", `msg="refused a peer"`, "peer=2g", "addr=/ip4/192.0.2.1/tcp/1", "direction=Inbound", "allow list"},
		{"level=WARN", `msg="refused a call"`, "peer=2g", "method=/x.Y/Z", "path=relay", "not today"},
		{"level=WARN", "does not have"},
		{"level=INFO", "may carry"},
	} {
		for _, w := range want {
			if len(got) <= i || !strings.Contains(got[i], w) {
				t.Errorf("line %d has no %q: %q", i, w, got)
			}
		}
	}
	if strings.Contains(strings.Join(got, ""), "\x1b") {
		t.Errorf("a reason moves the cursor: %q", got)
	}
}

func TestRefusals_AreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, lines := logOf(t)
		for range 10_000 { // one peer that does not give up
			r.call(callOf("a", "/x.Y/Z"), errUnlisted)
		}
		if got := len(lines()); got != refusedFirst {
			t.Errorf("one peer got %d lines, want %d", got, refusedFirst)
		}
		r.call(callOf("b", "/x.Y/Z"), errUnlisted)
		if got := lines(); len(got) != 1 || !strings.Contains(got[0], fmt.Sprintf("left_out=%d", 10_000-refusedFirst)) {
			t.Errorf("another peer's line after it: %q, want one that says how many were left out", got)
		}
		for i := range 10_000 { // peers that nobody has seen before
			r.peer(host.Refusal{Peer: peer.ID(fmt.Sprint(i))})
		}
		if got := len(lines()); got > refusedBurst {
			t.Errorf("a flood of identities got %d lines, want at most %d", got, refusedBurst)
		}
		if len(r.peers) > maxRefused {
			t.Errorf("%d peers are remembered, want at most %d", len(r.peers), maxRefused)
		}
		time.Sleep(20 * time.Second)
		r.call(callOf("a", "/x.Y/Z"), errUnlisted)
		if got := lines(); len(got) != 1 || !strings.Contains(got[0], "refused a call") {
			t.Errorf("after a while: %q, want a line again", got)
		}
	})
}
