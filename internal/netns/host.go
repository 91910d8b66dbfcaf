package netns

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"time"
)

// A Host is a network namespace with its interfaces.
type Host struct {
	lab  *Lab
	name string

	mu      sync.Mutex
	ifaces  map[string]*iface
	drops   bool
	ordered []string
}

type iface struct {
	bridge   *Bridge
	port     string // the other end, in the bridge's namespace
	ip4, ip6 netip.Addr
}

// Host adds a host that has only the loopback interface, which is up.
func (l *Lab) Host() *Host {
	l.tb.Helper()
	return &Host{lab: l, name: l.namespace(), ifaces: map[string]*iface{}}
}

// Name is the name of the namespace, as ip netns knows it.
func (h *Host) Name() string { return h.name }

// IP is the IPv4 address of an interface as last set; it is zero if its bridge has no IPv4 network.
func (h *Host) IP(ifname string) netip.Addr {
	h.lab.tb.Helper()
	i := h.iface(ifname)
	h.mu.Lock()
	defer h.mu.Unlock()
	return i.ip4
}

// IP6 is the IPv6 address of an interface as last set, not the link-local one; it is zero if its bridge has no IPv6
// network.
func (h *Host) IP6(ifname string) netip.Addr {
	h.lab.tb.Helper()
	i := h.iface(ifname)
	h.mu.Lock()
	defer h.mu.Unlock()
	return i.ip6
}

// Renumber replaces the addresses of an interface by others of the bridge's networks and returns them.
func (h *Host) Renumber(ifname string) (ip4, ip6 netip.Addr) {
	h.lab.tb.Helper()
	i := h.iface(ifname)
	ip4, ip6 = i.bridge.next()
	h.mu.Lock()
	old4, old6 := i.ip4, i.ip6
	i.ip4, i.ip6 = ip4, ip6
	h.mu.Unlock()
	for _, old := range []netip.Addr{old4, old6} {
		if old.IsValid() {
			h.IPRun("addr", "del", i.bridge.within(old), "dev", ifname)
		}
	}
	i.bridge.address(h, ifname, ip4, ip6)
	i.bridge.route(h, ifname)
	return ip4, ip6
}

func (h *Host) iface(ifname string) *iface {
	h.lab.tb.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.ifaces[ifname]
	if i == nil {
		h.lab.tb.Fatalf("netns: host %s has no interface %s", h.name, ifname)
	}
	return i
}

// Command returns a command that will run in the host. It is killed when ctx ends, and at the latest with the lab.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.name, name}, args...)...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Self returns the test's own binary as a command that will run in the host; env ("KEY=value") tells it what to be.
// The package's TestMain must look at env before it runs tests.
func (h *Host) Self(ctx context.Context, env ...string) *exec.Cmd {
	h.lab.tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		h.lab.tb.Fatalf("netns: %v", err)
	}
	cmd := h.Command(ctx, exe)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// Do calls f on a thread that is in the host, and returns its error. Sockets that f itself opens belong to the host
// for good; goroutines that f starts do not run in the host.
func (h *Host) Do(f func() error) error { return inNamespace(h.name, f) }

// IPRun runs the ip command in the host and fails the test when it fails.
func (h *Host) IPRun(args ...string) {
	h.lab.tb.Helper()
	h.lab.must(append([]string{"-n", h.name}, args...)...)
}
