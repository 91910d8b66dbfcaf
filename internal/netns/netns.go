// Package netns builds networks of several hosts on one machine for tests: each host is a Linux network namespace with
// an interface eth0 on a bridge, which stands in a namespace of its own. It needs root and the ip command, and skips
// the test without them.
//
// A process of a test is moved into a host by starting it there ([Host.Command], [Host.Self]); single system calls,
// such as opening a socket, can be made from the test's own process ([Host.Do]).
package netns

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// namesDir is where ip netns keeps the names of namespaces.
const namesDir = "/run/netns"

// prefix begins the name of every namespace of this package; the number of the process follows.
const prefix = "p2ptest-"

// A Lab is a set of hosts and bridges that lives as long as its test. Its methods and those of its hosts may be called
// concurrently; they fail the test when the system refuses, so they are for the test's own goroutine and those that
// end before the test.
type Lab struct {
	tb testing.TB

	mu      sync.Mutex
	names   []string // namespaces, in order of creation
	bridges int
}

// New returns an empty lab, or skips the test, with the reason, where none can be built. Everything in it is removed
// by tb.Cleanup, after the processes in it were killed; what a killed test left behind is removed by a later New.
func New(tb testing.TB) *Lab {
	tb.Helper()
	if err := usable(); err != nil {
		tb.Skipf("no network namespaces: %v", err)
	}
	sweep()
	l := &Lab{tb: tb}
	tb.Cleanup(l.remove)
	return l
}

// usable tells why no namespace can be built here. It tries.
func usable() error {
	if runtime.GOOS != "linux" {
		return errors.New("they are a thing of Linux")
	}
	if raceEnabled {
		return errors.New("they measure time, which the race detector stretches")
	}
	if os.Geteuid() != 0 {
		return errors.New("they take root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return errors.New("the command ip (iproute2) is missing")
	}
	name := newName()
	if err := ip("netns", "add", name); err != nil {
		return err
	}
	defer func() { _ = ip("netns", "del", name) }()
	if err := ip("-n", name, "link", "add", "br0", "type", "bridge"); err != nil {
		return err
	}
	return ip("-n", name, "link", "add", "v0", "type", "veth", "peer", "name", "v1")
}

// newName makes the name of a namespace, unique on this machine.
func newName() string {
	return fmt.Sprintf("%s%d-%s", prefix, os.Getpid(), strings.ToLower(rand.Text()[:10]))
}

// sweep removes the namespaces of processes that have ended.
func sweep() {
	entries, err := os.ReadDir(namesDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok {
			continue
		}
		number, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(number)
		if err != nil || pid <= 1 || pid == os.Getpid() {
			continue
		}
		if _, err := os.Stat(filepath.Join("/proc", number)); errors.Is(err, os.ErrNotExist) {
			removeNamespace(e.Name())
		}
	}
}

// namespace adds one, with its loopback interface up.
func (l *Lab) namespace() string {
	l.tb.Helper()
	name := newName()
	l.mu.Lock()
	l.names = append(l.names, name)
	l.mu.Unlock()
	l.must("netns", "add", name)
	l.must("-n", name, "link", "set", "lo", "up")
	if err := inNamespace(name, func() error {
		// Link-local addresses are used at once: nobody here has them, which takes a real host a second to find out. Without
		// IPv6 the file is missing.
		err := os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}); err != nil {
		l.tb.Fatalf("netns: %v", err)
	}
	return name
}

// remove kills what runs in the lab and removes it.
func (l *Lab) remove() {
	l.mu.Lock()
	names := l.names
	l.names = nil
	l.mu.Unlock()
	for _, name := range names {
		removeNamespace(name)
	}
}

func removeNamespace(name string) {
	for range 3 {
		pids := processes(name)
		for _, pid := range pids {
			if p, err := os.FindProcess(pid); err == nil && pid != os.Getpid() {
				_ = p.Signal(syscall.SIGKILL)
			}
		}
		if len(pids) == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // the kernel tells nobody when a process has ended
	}
	_ = ip("netns", "del", name)
}

// processes lists the processes in a namespace.
func processes(name string) []int {
	out, err := exec.Command("ip", "netns", "pids", name).Output() //nolint:noctx // ends by itself
	if err != nil {
		return nil
	}
	var pids []int
	for field := range strings.FieldsSeq(string(out)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// ip runs the ip command.
func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput() //nolint:noctx // ends by itself
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (l *Lab) must(args ...string) {
	l.tb.Helper()
	if err := ip(args...); err != nil {
		l.tb.Fatalf("netns: %v", err)
	}
}
