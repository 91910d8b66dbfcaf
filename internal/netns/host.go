package netns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"time"
)

// A Bridge is an Ethernet segment. Its hosts have addresses of 10.77.n.0/24 and fd77:0:0:n::/64.
type Bridge struct {
	lab    *Lab
	ns     string // the namespace that the bridge stands in
	number int

	mu    sync.Mutex
	ports int
	last  byte // the last host number given out
}

// Bridge adds an Ethernet segment.
func (l *Lab) Bridge() *Bridge {
	l.tb.Helper()
	l.mu.Lock()
	l.bridges++
	n := l.bridges
	l.mu.Unlock()
	b := &Bridge{lab: l, ns: l.namespace(), number: n}
	l.must("-n", b.ns, "link", "add", "br0", "type", "bridge")
	l.must("-n", b.ns, "link", "set", "br0", "up")
	return b
}

// next gives out a pair of addresses.
func (b *Bridge) next() (ip4, ip6 netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == 254 {
		b.lab.tb.Fatal("netns: the bridge has no address left")
	}
	b.last++
	n := byte(b.number)
	return netip.AddrFrom4([4]byte{10, 77, n, b.last}), netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 7: n, 15: b.last})
}

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

// Host adds a host with the interface eth0 on the bridge, with an IPv4 and an IPv6 address.
func (b *Bridge) Host() *Host {
	b.lab.tb.Helper()
	h := b.lab.Host()
	b.Attach(h, "eth0")
	return h
}

// Attach gives a host one more interface of that name, on the bridge, with an IPv4 and an IPv6 address.
func (b *Bridge) Attach(h *Host, ifname string) {
	b.lab.tb.Helper()
	b.mu.Lock()
	b.ports++
	port := fmt.Sprintf("port%d", b.ports)
	b.mu.Unlock()
	ip4, ip6 := b.next()
	h.mu.Lock()
	h.ifaces[ifname] = &iface{bridge: b, port: port, ip4: ip4, ip6: ip6}
	h.ordered = append(h.ordered, ifname)
	h.mu.Unlock()

	must := b.lab.must
	must("link", "add", ifname, "netns", h.name, "type", "veth", "peer", "name", port, "netns", b.ns)
	must("-n", b.ns, "link", "set", port, "master", "br0", "up")
	h.IPRun("addr", "add", ip4.String()+"/24", "brd", "+", "dev", ifname)
	h.IPRun("addr", "add", ip6.String()+"/64", "dev", ifname, "nodad")
	h.IPRun("link", "set", ifname, "up")
}

// Name is the name of the namespace, as ip netns knows it.
func (h *Host) Name() string { return h.name }

// IP is the IPv4 address of an interface as last set.
func (h *Host) IP(ifname string) netip.Addr {
	h.lab.tb.Helper()
	i := h.iface(ifname)
	h.mu.Lock()
	defer h.mu.Unlock()
	return i.ip4
}

// IP6 is the IPv6 address of an interface as last set, not the link-local one.
func (h *Host) IP6(ifname string) netip.Addr {
	h.lab.tb.Helper()
	i := h.iface(ifname)
	h.mu.Lock()
	defer h.mu.Unlock()
	return i.ip6
}

// Renumber replaces the addresses of an interface by others of the bridge's network and returns them.
func (h *Host) Renumber(ifname string) (ip4, ip6 netip.Addr) {
	h.lab.tb.Helper()
	i := h.iface(ifname)
	ip4, ip6 = i.bridge.next()
	h.mu.Lock()
	old4, old6 := i.ip4, i.ip6
	i.ip4, i.ip6 = ip4, ip6
	h.mu.Unlock()
	h.IPRun("addr", "del", old4.String()+"/24", "dev", ifname)
	h.IPRun("addr", "del", old6.String()+"/64", "dev", ifname)
	h.IPRun("addr", "add", ip4.String()+"/24", "brd", "+", "dev", ifname)
	h.IPRun("addr", "add", ip6.String()+"/64", "dev", ifname, "nodad")
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
