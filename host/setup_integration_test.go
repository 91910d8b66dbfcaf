package host_test

import (
	"errors"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
)

// Identify takes note of new handlers in its own time, which is made long here.
func TestNew_IdentifyTellsOfWhatSetupHasSetFromTheFirstAnswerOn(t *testing.T) {
	const early, late protocol.ID = "/test/early", "/test/late"
	reset := func(s network.Stream) { _ = s.Reset() }
	var holds atomic.Bool
	done := make(chan struct{})
	factory := libp2p.AddrsFactory(func(addrs []ma.Multiaddr) []ma.Multiaddr {
		if holds.Load() && strings.Contains(string(debug.Stack()), "updateSnapshot") {
			<-done
		}
		return addrs
	})
	to := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}})
	told, err := to.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = told.Close() }()
	from := newHost(t, host.Config{
		Libp2p: []libp2p.Option{factory},
		Setup: func(h corehost.Host) error {
			h.SetStreamHandler(early, reset)
			return nil
		},
	})
	t.Cleanup(func() { close(done) })
	holds.Store(true)
	from.SetStreamHandler(late, reset)
	if err := from.Connect(t.Context(), peer.AddrInfo{ID: to.ID(), Addrs: to.Addrs()}); err != nil {
		t.Fatal(err)
	}
	var protos []protocol.ID
	await(t, told, func(e any) bool {
		completed, ok := e.(event.EvtPeerIdentificationCompleted)
		protos = completed.Protocols
		return ok
	})
	if !slices.Contains(protos, early) {
		t.Errorf("told of %v only, want %s too", protos, early)
	}
	if slices.Contains(protos, late) {
		t.Errorf("told of %v: identify was not held, and nothing is shown", protos)
	}
}

func TestNew_AnErrorOfSetupIsItsOwn(t *testing.T) {
	wrong := errors.New("wrong")
	h, err := host.New(host.Config{Setup: func(corehost.Host) error { return wrong }})
	if h != nil || !errors.Is(err, wrong) {
		t.Errorf("host %v, error %v", h, err)
	}
}
