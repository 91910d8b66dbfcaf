package host_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/virtual"
)

func TestInterfaces_HasLoopback(t *testing.T) {
	all, err := host.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for n, i := range all {
		if n > 0 && all[n-1].Index >= i.Index {
			t.Error("not in order")
		}
		if i.Flags&net.FlagUp == 0 {
			t.Errorf("%s is down", i.Name)
		}
		if i.Flags&net.FlagLoopback == 0 {
			continue
		}
		for _, p := range i.Addrs {
			if p == netip.MustParsePrefix("127.0.0.1/8") {
				return
			}
		}
	}
	t.Errorf("127.0.0.1/8 is on none of %v", all)
}

func TestWatchInterfaces_CallsOnChange(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		eth := func(addrs ...string) []host.Interface {
			i := host.Interface{Index: 2, Name: "eth0", Flags: net.FlagUp}
			for _, a := range addrs {
				i.Addrs = append(i.Addrs, netip.MustParsePrefix(a))
			}
			return []host.Interface{i}
		}
		var mu sync.Mutex
		now, fault := eth("10.0.0.1/24"), error(nil)
		set := func(i []host.Interface, err error) {
			mu.Lock()
			defer mu.Unlock()
			now, fault = i, err
		}
		list := func() ([]host.Interface, error) {
			mu.Lock()
			defer mu.Unlock()
			return now, fault
		}
		var calls [][]host.Interface
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- host.Watch(ctx, list, func(i []host.Interface) { calls = append(calls, i) })
		}()
		after := func(what string, want int) {
			t.Helper()
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			if len(calls) != want {
				t.Errorf("%s: %d calls, want %d", what, len(calls), want)
			}
		}
		after("at the start", 1)
		after("nothing new", 1)
		set(eth("10.0.0.2/24"), nil)
		after("another address", 2)
		set(eth("10.0.0.2/24", "fe80::1/64"), nil)
		after("one more address", 3)
		set(nil, errors.New("busy"))
		after("cannot look", 3)
		set(nil, nil)
		after("all gone", 4)
		back := eth("10.0.0.2/24")
		back[0].Flags |= net.FlagMulticast
		set(back, nil)
		after("back", 5)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestWatchInterfaces_FailsAtTheStart(t *testing.T) {
	want := errors.New("no permission")
	err := host.Watch(t.Context(), func() ([]host.Interface, error) { return nil, want }, func([]host.Interface) { t.Error("called") })
	if !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
}

func TestInterface_Virtual(t *testing.T) {
	for name, want := range map[string]bool{
		"docker0": true, "br-0123456789ab": true, "virbr0": true, "cni0": true, "veth12ab": true, "podman1": true,
		"eth0": false, "br-lan": false, "br0": false, "wlan0": false, "en0": false, "enp3s0": false, "bridge0": false,
	} {
		if got := (host.Interface{Name: name}).Virtual(); got != want {
			t.Errorf("%q is virtual: %v", name, got)
		}
	}
}
