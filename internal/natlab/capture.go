//go:build linux

package natlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lynn9388/p2p/internal/netns"
)

// A Sent is a packet that left an interface.
type Sent struct {
	// Time is when it was seen.
	Time time.Time
	// Proto is "udp", "tcp", "icmp", "igmp", "arp" or a number.
	Proto string
	// From and To are the ends; the ports are 0 where the protocol has none. ARP has the addresses that it asks for.
	From, To netip.AddrPort
	// Size is the length in bytes, without the Ethernet header.
	Size int
}

// String writes it as in "udp 192.168.1.2:9388 > 5.1.1.2:9388, 1200 bytes".
func (s Sent) String() string {
	return fmt.Sprintf("%s %v > %v, %d bytes", s.Proto, s.From, s.To, s.Size)
}

// A Capture records the packets that leave an interface.
type Capture struct {
	file *os.File
	raw  interface {
		Read(func(fd uintptr) bool) error
		Control(func(fd uintptr)) error
	}
	done chan struct{}

	mu   sync.Mutex
	sent []Sent
}

// maxSent is how many packets a capture keeps: what a test can still look at.
const maxSent = 1 << 20

// NewCapture records what leaves an interface of a host from now on, until Stop or the end of the test.
func NewCapture(tb testing.TB, h *netns.Host, ifname string) *Capture {
	tb.Helper()
	c := &Capture{done: make(chan struct{})}
	err := h.Do(func() error {
		i, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		all := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
		// Cooked: without the Ethernet header, which TUN devices lack.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		c.file = os.NewFile(uintptr(fd), "capture")
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: i.Index}))
	})
	if err == nil {
		c.raw, err = c.file.SyscallConn()
	}
	if err != nil {
		tb.Fatalf("natlab: capture at %s: %v", ifname, err)
	}
	go func() {
		defer close(c.done)
		for c.raw.Read(func(fd uintptr) bool { return c.next(fd) }) == nil {
		}
	}()
	tb.Cleanup(func() { c.Stop() })
	return c
}

// next reads one packet and tells whether there was one.
func (c *Capture) next(fd uintptr) bool {
	var data [128]byte
	size, from, err := unix.Recvfrom(int(fd), data[:], unix.MSG_TRUNC)
	if err != nil {
		return errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) // down: told once
	}
	if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype == unix.PACKET_OUTGOING {
		sent := parse(link.Protocol, data[:min(size, len(data))])
		sent.Time, sent.Size = time.Now(), size
		c.mu.Lock()
		if len(c.sent) < maxSent {
			c.sent = append(c.sent, sent)
		}
		c.mu.Unlock()
	}
	return true
}

// Stop ends the capture and returns the packets in order: all that left before Stop was called, if they are not more than
// a million. It may be called again.
func (c *Capture) Stop() []Sent {
	_ = c.file.SetReadDeadline(time.Unix(0, 1))
	<-c.done
	// What came last may not be read yet.
	_ = c.raw.Control(func(fd uintptr) {
		for c.next(fd) {
		}
	})
	_ = c.file.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent
}

// parse reads the headers of a packet of that EtherType (in network byte order).
func parse(etherType uint16, data []byte) Sent {
	kind := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, etherType))
	if kind == unix.ETH_P_ARP && len(data) >= 28 {
		return Sent{
			Proto: "arp",
			From:  netip.AddrPortFrom(netip.AddrFrom4([4]byte(data[14:18])), 0),
			To:    netip.AddrPortFrom(netip.AddrFrom4([4]byte(data[24:28])), 0),
		}
	}
	source, destination, ok := ends(data)
	if !ok {
		return Sent{Proto: fmt.Sprintf("%#04x", kind)}
	}
	number, payload := data[9], data[min(len(data), int(data[0]&15)*4):]
	if source.Is6() {
		number, payload = data[6], data[40:]
		if number == 0 && len(payload) >= 8 { // hop-by-hop options, as multicast listeners' reports have
			number, payload = payload[0], payload[min(len(payload), int(payload[1])*8+8):]
		}
	}
	var sent Sent
	var ports [2]uint16
	switch number {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		sent.Proto = map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[number]
		if len(payload) >= 4 {
			ports = [2]uint16{binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:])}
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		sent.Proto = "icmp"
	case unix.IPPROTO_IGMP:
		sent.Proto = "igmp"
	default:
		sent.Proto = fmt.Sprint(number)
	}
	sent.From, sent.To = netip.AddrPortFrom(source, ports[0]), netip.AddrPortFrom(destination, ports[1])
	return sent
}
