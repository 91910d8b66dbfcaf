//go:build linux

package main

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/netns"
	"github.com/lynn9388/p2p/internal/pace"
)

// newMachines makes hosts on one bridge, whose nodes do not run yet.
func newMachines(t *testing.T, count int) []*machine {
	t.Helper()
	bridge, network := netns.New(t).Bridge(), "test-"+strings.ToLower(rand.Text())
	var out []*machine
	for range count {
		out = append(out, newMachine(t, bridge, network))
	}
	return out
}

// startAll starts nodes one after the other and waits until they see one another, 3 s after the last one's start.
func startAll(t *testing.T, machines ...*machine) {
	t.Helper()
	for _, m := range machines {
		m.start()
	}
	within(t, machines[len(machines)-1].began, 3*time.Second, "all see one another", func() bool { return allNeighbors(machines...) })
}

const shapesOne = "shapes.v1.ShapeService/One"

func TestHosts_FindAndCallOneAnother(t *testing.T) {
	t.Parallel()
	machines := newMachines(t, 3)
	startAll(t, machines...)
	// One of them offers the service: the others call it by its name, which goes over the bridge.
	machines[0].serve()
	for i, m := range machines {
		call(t, m, fmt.Sprintf("by name from %d", i))
	}
	for _, m := range machines[1:] {
		m.serve()
	}
	for i, m := range machines {
		for j, other := range machines {
			call(t, m, fmt.Sprintf("from %d to the program on %d", i, j), "--peer", other.service)
			if i == j {
				continue
			}
			out, err := m.cli("services", "call", "p2p.nodeinfo.v1.NodeInfoService/Info", "--peer", other.id)
			if err != nil || !strings.Contains(out, "startTime") {
				t.Errorf("from %d to the node on %d: %v\n%s", i, j, err, out)
			}
		}
	}
}

// call calls a user's service from a machine and expects the answer.
func call(t *testing.T, m *machine, word string, flags ...string) {
	t.Helper()
	out, err := m.cli(append([]string{"services", "call", shapesOne, "-d", fmt.Sprintf("{%q: %q}", "text", word)}, flags...)...)
	if err != nil || !strings.Contains(out, word) {
		t.Errorf("%s: %v\n%s", word, err, out)
	}
}

// TestHosts_CutOffAndBack cuts a host off silently: its interface stays up. The long form does it for a minute.
func TestHosts_CutOffAndBack(t *testing.T) {
	t.Parallel()
	cut := 10 * time.Second
	if pace.Long() {
		cut = time.Minute
	}
	machines := newMachines(t, 3)
	a, b, c := machines[0], machines[1], machines[2]
	startAll(t, machines...)
	c.host.Cut("eth0")
	begin := time.Now()
	within(t, begin, 40*time.Second, "the loss is noticed on both sides", func() bool {
		return !a.neighbor(c, "") && !b.neighbor(c, "") && !c.neighbor(a, "") && !c.neighbor(b, "")
	})
	time.Sleep(time.Until(begin.Add(cut)))
	c.host.Mend("eth0")
	within(t, time.Now(), 5*time.Second, "neighbors again", func() bool { return allNeighbors(machines...) })
	c.serve()
	call(t, a, "to the one that is back", "--peer", c.service)
}

func TestHosts_AddressChanges(t *testing.T) {
	t.Parallel()
	machines := newMachines(t, 2)
	a, b := machines[0], machines[1]
	startAll(t, machines...)
	ip4, ip6 := b.host.Renumber("eth0")
	within(t, time.Now(), 5*time.Second, "found at the new address", func() bool {
		return a.neighbor(b, ip4.String()) || a.neighbor(b, ip6.String())
	})
	// What it says on its new connection may still be the old address. It does not count.
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if !slices.ContainsFunc(a.peers(), func(p listedPeer) bool { return p.ID == b.id && p.at(ip4, ip6) }) {
			t.Fatal("its new address is forgotten again")
		}
	}
	// The first call may meet the old connection, which is dead and not yet known to be.
	if out, err := a.cli("ping", b.id, "-c", "1"); err != nil || !strings.Contains(out, "answer from") {
		t.Errorf("%v\n%s", err, out)
	}
}

// at tells whether one of the peer's addresses has one of the IP addresses.
func (p listedPeer) at(ips ...netip.Addr) bool {
	return slices.ContainsFunc(p.Addrs, func(a string) bool {
		return slices.ContainsFunc(ips, func(ip netip.Addr) bool { return strings.Contains(a, "/"+ip.String()+"/") })
	})
}

// TestHosts_Firewalled has two hosts that drop what comes in: each names the other, its address and port, and the rule
// that is missing, in what the node prints and in the status.
func TestHosts_Firewalled(t *testing.T) {
	t.Parallel()
	machines := newMachines(t, 2)
	a, b := machines[0], machines[1]
	for _, m := range machines {
		m.host.DropInbound()
		m.start()
	}
	rule := func(other *machine) []string {
		return []string{other.id, other.host.IP("eth0").String() + ":9388", "allow inbound TCP and UDP port 9388"}
	}
	within(t, b.began, 10*time.Second, "each says that it cannot reach the other", func() bool {
		return a.printed(append(rule(b), "unreachable")...) && b.printed(append(rule(a), "unreachable")...)
	})
	saysOnce(t, machines...)
	// It holds while the node goes on trying.
	for range 20 {
		for i, m := range machines {
			out, err := m.cli("status")
			if other := machines[1-i]; err != nil || !hasLine(out, rule(other)...) {
				t.Fatalf("status: %v\n%s", err, out)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, m := range machines {
		m.host.AcceptInbound()
	}
	within(t, time.Now(), 10*time.Second, "neighbors without the firewalls", func() bool { return allNeighbors(machines...) })
	for _, m := range machines {
		if out, err := m.cli("status"); err != nil || strings.Contains(out, "allow inbound") {
			t.Errorf("status without the firewalls: %v\n%s", err, out)
		}
	}
}

func TestHosts_CopiedHome(t *testing.T) {
	t.Parallel()
	machines := newMachines(t, 2)
	a, b := machines[0], machines[1]
	a.start()
	copyHome(t, a.home, b.home)
	b.start()
	if a.id != b.id {
		t.Fatalf("the copy has the identity %s, not %s", b.id, a.id)
	}
	within(t, b.began, 5*time.Second, "both name the clone", func() bool {
		return a.printed("cloned", b.host.IP("eth0").String()) && b.printed("cloned", a.host.IP("eth0").String())
	})
	saysOnce(t, machines...)
}

// saysOnce wants what the machines have printed not to be logged as well.
func saysOnce(t *testing.T, machines ...*machine) {
	t.Helper()
	for _, m := range machines {
		if log, err := os.ReadFile(m.log); err != nil || len(log) > 0 {
			t.Errorf("it is logged as well: %v %s", err, log)
		}
	}
}

func TestHosts_ThirtyOne(t *testing.T) {
	if !pace.Long() {
		t.Skip(pace.Variable + " is not set: thirty-one nodes keep a small machine busy")
	}
	machines := newMachines(t, 31)
	for _, m := range machines {
		m.start()
	}
	left := slices.Clone(machines)
	within(t, machines[len(machines)-1].began, 30*time.Second, "each lists 30 others", func() bool {
		left = slices.DeleteFunc(left, func(m *machine) bool {
			others := make(map[string]bool)
			for _, p := range m.peers() {
				others[p.ID] = true
			}
			return len(others) == 30 && !others[m.id]
		})
		return len(left) == 0
	})
}
