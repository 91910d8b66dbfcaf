//go:build linux

package p2p_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/internal/netns"
	"github.com/lynn9388/p2p/p2ptest"
)

// A node that listens everywhere on a machine that has no network yet says whom it will be open to, not whom it is.
func TestNode_SaysWhomItIsOpenToByWhereItListens(t *testing.T) {
	if part() == "" {
		await(t, play(t, netns.New(t).Host(), "host"), time.Minute)
		return
	}
	for listen, local := range map[string]bool{":0": false, "localhost:0": true, "127.0.0.1:0": true} {
		var log bytes.Buffer
		n := p2p.NewNode(listen, append(p2ptest.Options(p2ptest.Network()), p2p.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))...)
		start(t, n)
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		machine, network := strings.Contains(log.String(), "this machine only"), strings.Contains(log.String(), "every node of the network")
		if machine != local || network == local {
			t.Errorf("%s: it says %s", listen, log.String())
		}
	}
}
