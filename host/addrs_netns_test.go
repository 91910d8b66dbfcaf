//go:build linux

package host_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"

	"github.com/lynn9388/p2p/host"
)

// inNamespace is set in the environment of a test binary that runs in a network namespace of its own.
const inNamespace = "HOST_TEST_IN_NAMESPACE"

// namespace makes the test run in a network namespace of its own, as a process of its own, and returns true there.
// Outside it runs that process and returns false. Only root can.
func namespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		run(t, "ip", "link", "set", "lo", "up")
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip command:", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	switch {
	case cmd.ProcessState == nil:
		t.Skip("no network namespaces here:", err)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skip(string(out))
	case err != nil:
		t.Errorf("in the namespace: %v\n%s", err, out)
	}
	return false
}

func run(t *testing.T, command ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Skipf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
}

// ips returns the IP addresses that the host says it can be reached at.
func ips(h corehost.Host) string {
	var out []string
	for _, a := range host.Addrs(h) {
		if len(a) > 0 && !slices.Contains(out, a[0].Value()) {
			out = append(out, a[0].Value())
		}
	}
	return strings.Join(out, " ")
}

// until polls for a condition.
func until(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestAddrs_FollowTheInterfaces(t *testing.T) {
	t.Parallel()
	if !namespace(t) {
		return
	}
	h := newHost(t, host.Config{Listen: []string{":0"}})
	if got := ips(h); !strings.Contains(got, "127.0.0.1") || strings.Contains(got, "10.9") {
		t.Errorf("at first %s", got)
	}
	told, err := h.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated))
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	changes := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() {
		watched <- host.WatchInterfaces(ctx, func(all []host.Interface) {
			var out []string
			for _, i := range all {
				for _, p := range i.Addrs {
					out = append(out, p.String())
				}
			}
			changes <- strings.Join(out, " ")
		})
	}()
	if first := <-changes; strings.Contains(first, "10.9") {
		t.Errorf("interfaces at first: %s", first)
	}

	run(t, "ip", "link", "add", "test0", "type", "veth", "peer", "name", "test1")
	run(t, "ip", "addr", "add", "10.9.0.1/24", "dev", "test0")
	run(t, "ip", "link", "set", "test0", "up")
	run(t, "ip", "link", "set", "test1", "up")
	until(t, 5*time.Second, "the new address", func() bool { return strings.Contains(ips(h), "10.9.0.1") })
	await(t, told, func(e any) bool {
		u, ok := e.(event.EvtLocalAddressesUpdated)
		return ok && slices.ContainsFunc(u.Current, func(a event.UpdatedAddress) bool { return strings.Contains(a.Address.String(), "10.9.0.1") })
	})

	run(t, "ip", "addr", "del", "10.9.0.1/24", "dev", "test0")
	run(t, "ip", "addr", "add", "10.9.0.2/24", "dev", "test0")
	until(t, 5*time.Second, "the changed address", func() bool {
		got := ips(h)
		return strings.Contains(got, "10.9.0.2") && !strings.Contains(got, "10.9.0.1")
	})
	until(t, 5*time.Second, "the changed address of the interface", func() bool {
		select {
		case c := <-changes:
			return strings.Contains(c, "10.9.0.2/24") && !strings.Contains(c, "10.9.0.1/24")
		default:
			return false
		}
	})
	cancel()
	if err := <-watched; err != nil {
		t.Error(err)
	}
}

func TestListen_WithoutIPv6(t *testing.T) {
	if !namespace(t) {
		return
	}
	run(t, "sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1")
	for _, at := range []string{"localhost:0", ":0", "localhost:9388", ":9389"} {
		h := newHost(t, host.Config{Listen: []string{at}})
		if got := ips(h); got != "127.0.0.1" {
			t.Errorf("%s: %s", at, got)
		}
	}
	if _, err := host.New(host.Config{Listen: []string{"[::1]:0"}}); err == nil {
		t.Error("[::1] without IPv6 is no error")
	}
}

func TestListen_WithoutANetwork(t *testing.T) {
	if !namespace(t) {
		return
	}
	a := newHost(t, host.Config{Listen: []string{":9388"}})
	b := newHost(t, host.Config{Listen: []string{":0"}})
	if err := b.Connect(t.Context(), a.Peerstore().PeerInfo(a.ID())); err != nil {
		t.Errorf("with nothing but lo: %v", err)
	}
	// Somebody who has the port on one address only keeps us from having it on all.
	l, err := net.Listen("tcp", "127.0.0.1:9390")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := host.Listen(newHost(t, host.Config{}), ":9390"); err == nil || !strings.Contains(err.Error(), "TCP port 9390 is taken") {
		t.Errorf("error %v", err)
	}
}
