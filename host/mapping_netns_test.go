//go:build linux

package host_test

import (
	"bufio"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/natlab"
)

func TestMapPorts_ByARouterWithUPnP(t *testing.T) {
	lab := natlab.New(t, natlab.Config{})
	router := lab.Router(natlab.UPnP)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := router.Host().Self(ctx, mapsPorts+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	next := func() []string {
		if !lines.Scan() {
			t.Fatalf("the process has ended: %v", lines.Err())
		}
		t.Log(lines.Text())
		return strings.Fields(lines.Text())
	}
	said := next()
	at := router.Addr().String()
	want := []string{"mapped", "/ip4/" + at + "/tcp/9388", "/ip4/" + at + "/udp/9388/quic-v1"}
	if len(said) != 4 || strings.Join(said[:3], " ") != strings.Join(want, " ") {
		t.Errorf("%q, want %q", said, want)
	}
	if !mapped(t, router) {
		t.Error("the router maps nothing")
	}
	_ = in.Close()
	if said := next(); said[0] != "closed" {
		t.Errorf("%q", said)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if mapped(t, router) {
		t.Error("the router still maps what the host had mapped")
	}
}

// mapped tells whether the router lets anybody in.
func mapped(t *testing.T, router *natlab.Router) bool {
	t.Helper()
	rules, err := router.Gateway().Command(t.Context(), "nft", "list", "ruleset").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(rules), "dport 9388 dnat")
}
