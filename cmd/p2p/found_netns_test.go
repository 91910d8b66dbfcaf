//go:build linux

package main

import (
	"net"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/netns"
)

// TestRun_SecondNodeListsTheFirstOnAHost is the main promise with no flag but the homes, on a host with a network.
func TestRun_SecondNodeListsTheFirstOnAHost(t *testing.T) {
	foundHere(t, netns.New(t).Bridge().Host().Command)
}

// TestRun_SecondNodeListsTheFirstWithLoopbackOnly is the same on a machine without any network.
func TestRun_SecondNodeListsTheFirstWithLoopbackOnly(t *testing.T) {
	foundHere(t, netns.New(t).Host().Command)
}

// TestRun_UsualPort starts two nodes that were not told where to listen: the first takes the usual port on all addresses
// and says so, the second another one.
func TestRun_UsualPort(t *testing.T) {
	m := newMachines(t, 1)[0]
	m.start()
	at := m.host.IP("eth0").String()
	within(t, m.began, 5*time.Second, "it says where it listens, and to whom", func() bool {
		return m.printed("share: "+m.id+"@"+at+":9388") && m.printed("open to: every node of the network") && m.printed("listening: port 9388")
	})
	second := &machine{t: t, host: m.host, network: m.network, home: shortHome(t, "second")}
	second.start()
	within(t, second.began, 5*time.Second, "it says that the port is taken", func() bool {
		return second.printed("share: "+second.id+"@"+at+":") && second.printed("note:", "port 9388 is taken")
	})
	if second.printed("listening: port 9388") {
		t.Error("two nodes at one port")
	}
}

// TestRun_SaysOnceWhyMulticastIsRefused has another program hold the port of multicast DNS for itself.
func TestRun_SaysOnceWhyMulticastIsRefused(t *testing.T) {
	m := newMachines(t, 1)[0]
	var held net.PacketConn
	if err := m.host.Do(func() (err error) {
		held, err = new(net.ListenConfig).ListenPacket(t.Context(), "udp", ":5353")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	m.start()
	within(t, m.began, 5*time.Second, "it says why nobody is found", func() bool {
		return m.printed("looking for others: multicast DNS cannot be used", "UDP port 5353")
	})
	if out, err := m.cli("status"); err != nil || !hasLine(out, "diagnosis", "UDP port 5353") {
		t.Errorf("status: %v\n%s", err, out)
	}
	saysOnce(t, m)
}
