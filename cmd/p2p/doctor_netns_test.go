//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/natlab"
	"github.com/lynn9388/p2p/internal/netns"
	"github.com/lynn9388/p2p/internal/pace"
)

// doctor returns what "p2p doctor" says of one thing: a line for each check of it, with its outcome and what to do.
func (m *machine) doctor(check string, args ...string) string {
	m.t.Helper()
	// It fails when a check does.
	out, _ := exec.CommandContext(m.t.Context(), "p2p", append([]string{"--home", m.home, "doctor", "-o", "json"}, args...)...).Output()
	var checks []struct{ Check, Status, Text, Remedy string }
	if err := json.Unmarshal(out, &checks); err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, c := range checks {
		if c.Check == check {
			fmt.Fprintf(&b, "%s: %s. %s\n", c.Status, c.Text, c.Remedy)
		}
	}
	return b.String()
}

// says waits until a check says what it is to say.
func (m *machine) says(check string, words ...string) {
	m.t.Helper()
	within(m.t, time.Now(), 15*time.Second, "doctor says of "+check+": "+strings.Join(words, ", "), func() bool {
		return hasLine(m.doctor(check), words...)
	})
}

// TestDoctor_NamesTheNAT has a node behind a router of each kind, and two relays, which is what it takes to tell them apart.
func TestDoctor_NamesTheNAT(t *testing.T) {
	if !pace.Long() {
		t.Skip(pace.Variable + " is not set: nine nodes that have to be waited for")
	}
	t.Parallel()
	lab, on := newOffices(t, natlab.IPv4)
	first, second := on(lab.Public(), "--profile", "relay"), on(lab.Public(), "--profile", "relay")
	first.start()
	second.start()
	for kind, words := range map[natlab.Kind][]string{
		natlab.None:           {"pass", "none in the way"},
		natlab.Firewall:       {"pass", "no NAT", "a firewall"},
		natlab.FullCone:       {"pass", "endpoint-independent NAT", "open to other ports"},
		natlab.Restricted:     {"pass", "endpoint-independent NAT"},
		natlab.PortRestricted: {"pass", "endpoint-independent NAT", "closed to ports"},
		natlab.Symmetric:      {"warn", "symmetric NAT", "map a port"},
		natlab.UPnP:           {"pass", "none in the way"},
	} {
		t.Run(kind.String(), func(t *testing.T) {
			m := on(lab.Router(kind).Host(), "--profile", "wan", "--join", first.share, "--join", second.share)
			m.t = t
			m.start()
			m.says("nat", words...)
			m.says("udp", "pass", "2 relays")
			m.says("ports", "pass", "tcp 9388, udp 9388, udp 5353, and no others")
			if kind == natlab.UPnP {
				m.says("port mapping", "pass", "lets others in")
			}
		})
	}
	first.says("reached", "pass", "over TCP")
}

// TestDoctor_FindsWhatIsWrong breaks one thing after the other.
func TestDoctor_FindsWhatIsWrong(t *testing.T) {
	if !pace.Long() {
		t.Skip(pace.Variable + " is not set: what is blocked shows by silence, which takes its time")
	}
	t.Parallel()
	lab, on := newOffices(t, natlab.IPv4)
	first, second := on(lab.Public(), "--profile", "relay"), on(lab.Public(), "--profile", "relay")
	first.start()
	second.start()
	_, place, _ := strings.Cut(first.share, "@")

	blocked := on(lab.Router(natlab.UDPBlocked).Host(), "--profile", "wan", "--join", first.share, "--join", second.share)
	blocked.start()
	blocked.says("udp", "fail", "on this side", "let UDP out")

	office := lab.Router(natlab.PortRestricted)
	wrong := on(office.Host(), "--profile", "wan", "--join", blocked.id+"@"+place)
	wrong.start()
	wrong.says("relay", "fail", "another peer answers", first.id)
	wrong.says("nat", "unknown", "no relay has told")

	m := on(office.Host(), "--profile", "wan", "--join", first.share)
	m.start()
	m.says("relay", "pass", "carries for this node")
	m.says("nat", "unknown", "by one relay", "second relay")
	m.says("clock", "pass", "the same")
	m.says("key", "pass")
	for check, words := range map[string][]string{
		"calls": {"pass", "it answers"}, "from there": {"it sees this node"}, "clock": {"pass"}, "path": {""},
	} {
		within(t, time.Now(), 15*time.Second, "doctor PEER says "+check, func() bool {
			return hasLine(m.doctor(check, blocked.share), words...)
		})
	}

	// A clock that is wrong differs from those of all others, and whose it is shows by their number.
	elsewhere := func(h *netns.Host, flags ...string) *machine {
		m := on(h, flags...)
		m.network += "-elsewhere"
		return m
	}
	var behind []string
	for range 2 {
		r := elsewhere(lab.Public())
		line := r.run("shapes", "-network", r.network, "-listen", ":9388", "-relay", "-ahead", "-15m")
		id, _, _ := strings.Cut(strings.TrimPrefix(line, "share: "), "@")
		behind = append(behind, "--join", id+"@"+netip.AddrPortFrom(r.host.IP("eth0"), 9388).String())
	}
	late := elsewhere(office.Host(), append([]string{"--profile", "wan"}, behind[:2]...)...)
	late.start()
	late.says("clock", "fail", "15m0s behind this one", "one of the two is wrong", "NTP")
	later := elsewhere(office.Host(), append([]string{"--profile", "wan"}, behind...)...)
	later.start()
	later.says("clock", "fail", "it is wrong", "15m0s behind this one", "others agree", "NTP")

	drop(t, first.host, "udp", "9388")
	m.says("udp", "warn", "here or there")
	deaf := on(lab.Router(natlab.PortRestricted).Host())
	drop(t, deaf.host, "udp", "5353")
	deaf.start()
	deaf.says("multicast", "fail", "UDP port 5353")
	if err := os.Chmod(filepath.Join(m.home, "identity.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	m.says("key", "fail", "chmod 600", "new identity")
	drop(t, first.host, "tcp", "9388")
	m.says("relay", "fail", "nobody answers")

	hidden := on(lab.Router(natlab.OneToOne).Host(), "--profile", "relay")
	hidden.start()
	hidden.says("announced", "fail", "private addresses only", "--announce")
}

// drop has a host drop the packets that come in at a port.
func drop(t *testing.T, h *netns.Host, proto, port string) {
	t.Helper()
	table := "deaf_" + proto + port
	for _, args := range [][]string{
		{"add", "table", "inet", table},
		{"add", "chain", "inet", table, "input", "{ type filter hook input priority -10 ; }"},
		{"add", "rule", "inet", table, "input", proto, "dport", port, "drop"},
	} {
		if out, err := h.Command(t.Context(), "nft", args...).CombinedOutput(); err != nil {
			t.Fatalf("nft %v: %v: %s", args, err, out)
		}
	}
}
