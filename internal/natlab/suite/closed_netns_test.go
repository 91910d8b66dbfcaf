//go:build linux

package suite

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/natlab"
)

// TestStranger has somebody who is not on the relay's list try to learn something of it, and to be carried to a node.
func TestStranger(t *testing.T) {
	w := newWorld(t, natlab.Config{Delay: hop})
	relay := w.node(w.Public(), setup{Profile: "relay", WebSocket: ":443"})
	member := w.wan(w.Router(natlab.PortRestricted).Host(), relay)
	relay.setup.Allow = []string{member.id.String()}
	relay.start()
	member.start()
	if member.reservedAfter() == 0 {
		t.Fatal("the member has no reservation")
	}
	stranger := w.node(w.Public(), setup{Profile: "stranger"})
	stranger.start()
	ip := relay.host.IP("eth0").String()
	got := order[Pried](stranger, "Pry", Pry{
		Network: w.network, Relay: relay.id.String(), Member: member.id.String(),
		Addrs: []string{"/ip4/" + ip + "/tcp/9388", "/ip4/" + ip + "/udp/9388/quic-v1", "/ip4/" + ip + "/tcp/443/ws"},
	})
	for _, e := range got.Errors {
		t.Log(e)
	}
	if len(got.Protocols) > 0 || len(got.Known) > 0 || got.Agent != "" {
		t.Errorf("the stranger has learnt: agent %q, protocols %q, addresses %q", got.Agent, got.Protocols, got.Known)
	}
	if len(got.Opened) > 0 || got.Reserved || got.Circuit {
		t.Errorf("the stranger has used %q; reservation %v, circuit %v", got.Opened, got.Reserved, got.Circuit)
	}
	if log := relay.logged(); !strings.Contains(log, stranger.id.String()) || !strings.Contains(log, "refused") {
		t.Error("the relay's log does not say that somebody was refused")
	}
}

// TestRelayLimit has a call reach the limit of a relay that carries little.
func TestRelayLimit(t *testing.T) {
	w := newWorld(t, natlab.Config{Delay: hop})
	relay := w.node(w.Public(), setup{Profile: "carrier", Carry: 256 << 10})
	relay.start()
	left, right := w.wan(w.Router(natlab.Symmetric).Host(), relay), w.wan(w.Router(natlab.Symmetric).Host(), relay)
	right.start()
	left.start()
	left.call(right, 0)
	got := order[Called](left, "Call", Call{Target: right.id.String(), Give: 1 << 20, Timeout: patience})
	t.Log(got.Err)
	for _, word := range []string{relay.id.String(), "limit", "256 KiB"} {
		if !strings.Contains(got.Err, word) {
			t.Errorf("the error does not name %q", word)
		}
	}
	// A call that is small enough works again.
	left.recovered(right, time.Now(), 5*time.Second, "a small call")
}

// TestQuiet has two nodes with default options find each other on a LAN, with a third beside them that has a relay, and
// looks at what leaves the first one's host and, without the third, the site.
func TestQuiet(t *testing.T) {
	for _, third := range []bool{false, true} {
		t.Run(fmt.Sprintf("beside a node with a relay %v", third), func(t *testing.T) { quiet(t, third) })
	}
}

func quiet(t *testing.T, third bool) {
	w := newWorld(t, natlab.Config{Family: natlab.Both})
	site := w.Router(natlab.PortRestricted)
	host := site.Host()
	if third {
		relay := w.relay()
		abroad := w.wan(w.Router(natlab.PortRestricted).Host(), relay)
		abroad.start()
		w.wan(site.Host(), relay).start()
	}
	outside, inside := natlab.NewCapture(t, site.Gateway(), "wan"), natlab.NewCapture(t, host, "eth0")
	first, second := w.node(host, setup{Profile: "lan"}), w.node(site.Host(), setup{Profile: "lan", Service: serviceName})
	first.setup.First, first.setup.ByName = serviceName, true
	first.start()
	second.start()
	if got := order[Called](first, "First", struct{}{}); got.Err != "" {
		t.Error(got.Err)
	}
	time.Sleep(20 * time.Second) // what is sent later, if it is
	first.stop()
	second.stop()
	networks := []netip.Prefix{netip.PrefixFrom(host.IP("eth0"), 24), netip.PrefixFrom(host.IP6("eth0"), 64)}
	sent := inside.Stop()
	if len(sent) == 0 {
		t.Error("nothing was captured on the LAN")
	}
	elsewhere := map[string]int{}
	for _, s := range sent {
		to := s.To.Addr()
		link := s.Proto == "arp" || to.IsLinkLocalUnicast() || to.IsLinkLocalMulticast() || to.IsInterfaceLocalMulticast() ||
			slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(to) })
		router := (to == site.Gateway().IP("br0") || to == site.Gateway().IP6("br0")) && s.Proto != "icmp" && s.Proto != "arp"
		if !link || router {
			elsewhere[fmt.Sprintf("%s %v", s.Proto, s.To)]++
		}
	}
	for to, count := range elsewhere {
		t.Errorf("%d packets left the host for elsewhere: %s", count, to)
	}
	for _, s := range outside.Stop() {
		if !third && (s.Proto == "tcp" || s.Proto == "udp") {
			t.Errorf("left the site: %v", s)
		}
	}
}
