// Package netns builds networks of several hosts on one machine for tests: each host is a Linux network namespace with
// an interface eth0 on a bridge. It needs root and the ip command, and skips the test without them.
//
// A process of a test is moved into a host by starting it there ([Host.Command], [Host.Self]); single system calls,
// such as opening a socket, can be made from the test's own process ([Host.Do]).
package netns

import (
	"context"
	"net/netip"
	"os/exec"
	"testing"
)

// A Lab is a set of hosts and bridges that lives as long as its test.
type Lab struct{ tb testing.TB }

// New returns an empty lab, or skips the test, with the reason, where none can be built. Everything in it is removed
// by tb.Cleanup, after the processes in it were killed; what a killed test left behind is removed by a later New.
func New(tb testing.TB) *Lab { return &Lab{tb: tb} }

// A Bridge is an Ethernet segment. Its hosts have the addresses 10.x.y.0/24 and fd10:x:y::/64.
type Bridge struct{ lab *Lab }

// Bridge adds an Ethernet segment.
func (l *Lab) Bridge() *Bridge { return &Bridge{lab: l} }

// A Host is a network namespace.
type Host struct {
	lab  *Lab
	name string
}

// Host adds a host that has only the loopback interface, which is up.
func (l *Lab) Host() *Host { return &Host{lab: l} }

// Host adds a host with the interface eth0 on the bridge, with an IPv4 and an IPv6 address.
func (b *Bridge) Host() *Host { return &Host{lab: b.lab} }

// Attach gives a host one more interface of that name, on the bridge, with an IPv4 and an IPv6 address.
func (b *Bridge) Attach(h *Host, ifname string) {}

// Name is the name of the namespace, as ip netns knows it.
func (h *Host) Name() string { return h.name }

// IP is the IPv4 address of an interface as last set.
func (h *Host) IP(ifname string) netip.Addr { return netip.Addr{} }

// IP6 is the IPv6 address of an interface as last set, not the link-local one.
func (h *Host) IP6(ifname string) netip.Addr { return netip.Addr{} }

// SetIP replaces the IPv4 address of an interface by another of the bridge's network and returns it.
func (h *Host) SetIP(ifname string) netip.Addr { return netip.Addr{} }

// Command returns a command that will run in the host. It is killed when ctx ends.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd { return nil }

// Self returns the test's own binary as a command that will run in the host; env (KEY=value) tells it what to be.
// The binary's TestMain looks at env before it runs tests.
func (h *Host) Self(ctx context.Context, env ...string) *exec.Cmd { return nil }

// Do calls f on a thread that is in the host. Sockets that f itself opens belong to the host for good; goroutines
// that f starts do not run in the host.
func (h *Host) Do(f func() error) error { return nil }

// Pull pulls the cable of an interface: the host sees that the carrier is gone.
func (h *Host) Pull(ifname string) {}

// Plug puts the cable back.
func (h *Host) Plug(ifname string) {}

// Cut takes an interface off the bridge: packets are lost, but the host sees its carrier as before.
func (h *Host) Cut(ifname string) {}

// Mend undoes Cut.
func (h *Host) Mend(ifname string) {}

// DropInbound makes the host drop what comes in, silently, as a firewall does: all TCP, and all UDP except to
// multicast DNS, on all interfaces but loopback. Established connections that the host opened itself are cut as well,
// for answers are not let in either.
func (h *Host) DropInbound() {}

// AcceptInbound undoes DropInbound.
func (h *Host) AcceptInbound() {}

// IPRun runs the ip command in the host and fails the test when it fails.
func (h *Host) IPRun(args ...string) {}
