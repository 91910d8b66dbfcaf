package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/pace"
)

func TestMain(m *testing.M) {
	if os.Getenv("NETNS_TEST") == "hostnames" {
		ifaces, err := net.Interfaces()
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		for _, i := range ifaces {
			fmt.Println(i.Name)
		}
		os.Exit(0)
	}
	pace.Waiting(4) // for packets that do not come
	os.Exit(m.Run())
}

// listen opens an echo server in a host and returns its address there.
func listen(t *testing.T, h *Host, address string) {
	t.Helper()
	var ln net.Listener
	err := h.Do(func() (err error) {
		ln, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
}

// reach says whether a host reaches an echo server within a second.
func reach(t *testing.T, h *Host, address string) error {
	t.Helper()
	return h.Do(func() error {
		// A plain IP address and no deadline races: the dial stays on this thread.
		d := net.Dialer{Timeout: 700 * time.Millisecond, FallbackDelay: -1}
		c, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err = io.ReadFull(c, make([]byte, 1))
		return err
	})
}

// reachSoon waits until a host reaches echo servers: the bridge has to learn its neighbors first.
func reachSoon(t *testing.T, h *Host, addresses ...string) {
	t.Helper()
	for _, address := range addresses {
		err := reach(t, h, address)
		for i := 0; err != nil && i < 10; i++ {
			err = reach(t, h, address)
		}
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
	}
}

// served is two hosts on a bridge, the first with an echo server at the addresses v4 and v6.
func served(t *testing.T) (a, b *Host, v4, v6 string) {
	t.Helper()
	bridge := New(t).Bridge()
	a, b = bridge.Host(), bridge.Host()
	listen(t, a, ":7000")
	v4, v6 = net.JoinHostPort(a.IP("eth0").String(), "7000"), net.JoinHostPort(a.IP6("eth0").String(), "7000")
	reachSoon(t, b, v4, v6)
	return a, b, v4, v6
}

func TestHost_Faults(t *testing.T) {
	for name, fault := range map[string]struct{ on, off func(a, b *Host) }{
		"pull": {func(a, _ *Host) { a.Pull("eth0") }, func(a, _ *Host) { a.Plug("eth0") }},
		"cut":  {func(_, b *Host) { b.Cut("eth0") }, func(_, b *Host) { b.Mend("eth0") }},
		"drop": {func(a, _ *Host) { a.DropInbound() }, func(a, _ *Host) { a.AcceptInbound() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, v4, v6 := served(t)
			fault.on(a, b)
			for _, address := range []string{v4, v6} {
				err := reach(t, b, address)
				if err == nil {
					t.Errorf("%s: reached", address)
				}
				var timeout net.Error
				if name == "drop" && (!errors.As(err, &timeout) || !timeout.Timeout()) {
					t.Errorf("%s: %v; want silence", address, err)
				}
			}
			if err := reach(t, a, "127.0.0.1:7000"); err != nil {
				t.Errorf("loopback: %v", err)
			}
			fault.off(a, b)
			reachSoon(t, b, v4, v6)
		})
	}
}

func TestHost_Renumber(t *testing.T) {
	a, b, v4, _ := served(t)
	ip4, _ := a.Renumber("eth0")
	if err := reach(t, b, v4); err == nil {
		t.Error("the old address is still there")
	}
	reachSoon(t, b, net.JoinHostPort(ip4.String(), "7000"))
}

func TestHost_Self(t *testing.T) {
	lab := New(t)
	h := lab.Host()
	lab.Bridge().Attach(h, "lan7")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := h.Self(ctx, "NETNS_TEST=hostnames").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := strings.Join(strings.Fields(string(out)), " "); got != "lo lan7" {
		t.Errorf("interfaces %q; want lo lan7", got)
	}
}

func TestLab_NothingLeft(t *testing.T) {
	var name string
	var cmd *exec.Cmd
	var out bytes.Buffer
	t.Run("lab", func(t *testing.T) {
		lab := New(t)
		h := lab.Host()
		name = h.Name()
		cmd = h.Command(context.Background(), "sleep", "60") //nolint:usetesting // it must outlive the subtest
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(5 * time.Second); len(processes(name)) == 0; {
			if time.Now().After(deadline) {
				t.Fatal("the command never came into the host")
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	if name == "" {
		t.Skip("no lab here")
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Errorf("the command ended with %v; want killed", err)
	}
	if _, err := os.Stat(filepath.Join(namesDir, name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("namespace %s is still there: %v", name, err)
	}
}

func TestSweep_DeadProcess(t *testing.T) {
	New(t) // skips where it must
	dead := exec.CommandContext(t.Context(), "true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("%s%d-1", prefix, dead.Process.Pid)
	if err := ip("netns", "add", name); err != nil {
		t.Fatal(err)
	}
	sweep()
	if _, err := os.Stat(filepath.Join(namesDir, name)); !errors.Is(err, os.ErrNotExist) {
		_ = ip("netns", "del", name)
		t.Errorf("namespace %s is still there", name)
	}
}
