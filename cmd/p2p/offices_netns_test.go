//go:build linux

package main

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/natlab"
	"github.com/lynn9388/p2p/internal/netns"
)

// The nodes of these tests are on different sites of an Internet, 15 ms from one another, and know of each other what
// their first line says to share.

// newOffices makes an Internet, and returns what puts a node on a host of it.
func newOffices(t *testing.T, family natlab.Family) (*natlab.Lab, func(h *netns.Host, flags ...string) *machine) {
	t.Helper()
	network := "test-" + strings.ToLower(rand.Text())
	return natlab.New(t, natlab.Config{Delay: 15 * time.Millisecond, Family: family}), func(h *netns.Host, flags ...string) *machine {
		return &machine{t: t, host: h, network: network, home: shortHome(t, "home"), flags: append(flags, "--open")}
	}
}

// reaches calls the node that another machine shares.
func (m *machine) reaches(to *machine) error {
	m.t.Helper()
	out, err := m.cli("services", "call", "p2p.nodeinfo.v1.NodeInfoService/Info", "--peer", to.share)
	if err == nil && !strings.Contains(out, "startTime") {
		err = fmt.Errorf("it answers %s", out)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// reachOneAnother has each machine call each other one.
func reachOneAnother(t *testing.T, machines ...*machine) {
	t.Helper()
	for i, from := range machines {
		for j, to := range machines {
			if i == j {
				continue
			}
			begin := time.Now()
			if err := from.reaches(to); err != nil {
				t.Errorf("%d calls %d at %s: %v", i, j, to.share, err)
			}
			t.Logf("%d called %d at %s after %v", i, j, to.share, time.Since(begin).Round(time.Millisecond))
		}
	}
}

// path is how a machine's node is connected to another's: "direct", "relay" or "".
func (m *machine) path(to *machine) string {
	m.t.Helper()
	peers := m.peers()
	if i := slices.IndexFunc(peers, func(p listedPeer) bool { return p.ID == to.id }); i >= 0 {
		return peers[i].Path
	}
	return ""
}

// TestOffices_RelayInACloud has one relay whose own address is private, behind a 1:1 NAT, and two offices of which one has
// a NAT that no hole can be punched through.
func TestOffices_RelayInACloud(t *testing.T) {
	t.Parallel()
	lab, on := newOffices(t, natlab.IPv4)
	cloud := lab.Router(natlab.OneToOne)
	relay := on(cloud.Host(), "--profile", "relay", "--announce", cloud.Addr().String())
	relay.start()
	if want := relay.id + "@" + cloud.Addr().String() + ":9388"; relay.share != want {
		t.Errorf("the relay shares %s; want %s", relay.share, want)
	}
	first := on(lab.Router(natlab.PortRestricted).Host(), "--profile", "wan", "--join", relay.share)
	second := on(lab.Router(natlab.Symmetric).Host(), "--profile", "wan", "--join", relay.share)
	third := on(lab.Router(natlab.PortRestricted).Host(), "--profile", "wan", "--join", relay.share)
	for _, m := range []*machine{first, second, third} {
		m.start()
	}
	reachOneAnother(t, relay, first, second, third)
	within(t, time.Now(), 5*time.Second, "directly connected where that is possible", func() bool { return first.path(third) == "direct" })
	within(t, time.Now(), 5*time.Second, "it says why not where it is not", func() bool {
		out, err := first.cli("peers", "info", second.id)
		return err == nil && hasLine(out, "not direct", "failed") && hasLine(out, "relay", relay.id)
	})
}

// TestOffices_RelayThatNobodyReaches has a relay with a private address that is told of no other: it says so.
func TestOffices_RelayThatNobodyReaches(t *testing.T) {
	t.Parallel()
	lab, on := newOffices(t, natlab.IPv4)
	relay := on(lab.Router(natlab.OneToOne).Host(), "--profile", "relay")
	relay.start()
	within(t, relay.began, 5*time.Second, "it says what is missing", func() bool { return relay.printed("private", "--announce") })
}

// TestOffices_Proxy has an office that nothing leaves but what its HTTP proxy connects to port 443.
func TestOffices_Proxy(t *testing.T) {
	t.Parallel()
	lab, on := newOffices(t, natlab.IPv4)
	relay := on(lab.Public(), "--profile", "relay", "--websocket", ":443")
	relay.start()
	office := lab.Router(natlab.ProxyOnly)
	web := fmt.Sprintf("/ip4/%s/tcp/443/ws/p2p/%s", relay.host.IP("eth0"), relay.id)
	inside := on(office.Host(), "--profile", "wan", "--join", web)
	inside.env = []string{"HTTPS_PROXY=" + office.Proxy()}
	outside := on(lab.Router(natlab.PortRestricted).Host(), "--profile", "wan", "--join", relay.share)
	outside.start()
	inside.start()
	within(t, inside.began, 3*time.Second, "calls out of the office and into it", func() bool {
		return inside.reaches(outside) == nil && outside.reaches(inside) == nil
	})
	reachOneAnother(t, relay, outside, inside)
	if out, err := inside.cli("peers", "info", outside.id); err != nil || !hasLine(out, "not direct") || !hasLine(out, "relay", relay.id) {
		t.Errorf("peers info does not say why and which relay: %v\n%s", err, out)
	}
}

// TestOffices_ProxyByTheShareLine is the same with a relay that takes WebSocket at the port of all else, so that what it
// shares is all that the office needs.
func TestOffices_ProxyByTheShareLine(t *testing.T) {
	t.Parallel()
	lab, on := newOffices(t, natlab.IPv4)
	relay := on(lab.Public(), "--listen", ":443", "--profile", "relay", "--websocket", ":443")
	relay.start()
	office := lab.Router(natlab.ProxyOnly)
	inside := on(office.Host(), "--profile", "wan", "--join", relay.share)
	inside.env = []string{"HTTPS_PROXY=" + office.Proxy()}
	inside.start()
	within(t, inside.began, 5*time.Second, "calls to the relay and back", func() bool {
		return inside.reaches(relay) == nil && relay.reaches(inside) == nil
	})
}

// TestOffices_IPv6 has two offices with stateful firewalls and IPv6 alone.
func TestOffices_IPv6(t *testing.T) {
	t.Parallel()
	lab, on := newOffices(t, natlab.IPv6)
	relay := on(lab.Public(), "--profile", "relay")
	relay.start()
	first := on(lab.Router(natlab.Firewall).Host(), "--profile", "wan", "--join", relay.share)
	second := on(lab.Router(natlab.Firewall).Host(), "--profile", "wan", "--join", relay.share)
	first.start()
	second.start()
	reachOneAnother(t, relay, first, second)
	within(t, second.began, 10*time.Second, "directly connected", func() bool { return first.path(second) == "direct" && second.path(first) == "direct" })
}
