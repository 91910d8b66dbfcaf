//go:build linux

package natlab

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/lynn9388/p2p/internal/netns"
	"github.com/lynn9388/p2p/internal/pace"
)

func TestMain(m *testing.M) {
	pace.Waiting(8) // for packets that do not come
	goleak.VerifyTestMain(m)
}

// patience is how long a packet that must come may take on a busy machine.
const patience = 10 * time.Second

// overtaken is how much later than a packet another may come that was sent before it.
const overtaken = 200 * time.Millisecond

// socket is a UDP socket of a host.
type socket struct {
	*net.UDPConn
	t  *testing.T
	at netip.AddrPort
}

// open opens a socket at a port of the host's address of that version.
func open(t *testing.T, h *netns.Host, family Family, port uint16) *socket {
	t.Helper()
	ip := h.IP("eth0")
	if family == IPv6 {
		ip = h.IP6("eth0")
	}
	s := &socket{t: t}
	if err := h.Do(func() (err error) {
		s.UDPConn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, port)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	addr, _ := netip.ParseAddrPort(s.LocalAddr().String())
	s.at = addr
	return s
}

func (s *socket) send(text string, to netip.AddrPort) {
	s.t.Helper()
	if _, err := s.WriteToUDPAddrPort([]byte(text), to); err != nil {
		s.t.Fatalf("send to %v: %v", to, err)
	}
}

// next waits for a packet.
func (s *socket) next() (text string, from netip.AddrPort) {
	s.t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(patience))
	data := make([]byte, 1500)
	n, from, err := s.ReadFromUDPAddrPort(data)
	if err != nil {
		s.t.Fatalf("at %v: %v", s.at, err)
	}
	return string(data[:n]), netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// mapped is where a socket's packets to another come from, as that one sees it.
func (s *socket) mapped(to *socket) netip.AddrPort {
	s.t.Helper()
	s.send("hello", to.at)
	text, from := to.next()
	if text != "hello" {
		s.t.Fatalf("%q arrived instead of hello", text)
	}
	return from
}

// gets tells whether a packet from another socket to an address reaches this one. The packet of the marker, which is let
// in at its address, is sent later; it can overtake the first by little, on another processor.
func (s *socket) gets(from *socket, to netip.AddrPort, marker *socket, in netip.AddrPort) bool {
	s.t.Helper()
	from.send("probe", to)
	marker.send("marker", in)
	first, _ := s.next()
	if first == "probe" {
		if text, _ := s.next(); text != "marker" {
			s.t.Fatalf("%q arrived instead of the marker", text)
		}
		return true
	}
	_ = s.SetReadDeadline(time.Now().Add(overtaken))
	data := make([]byte, 1500)
	n, err := s.Read(data)
	return err == nil && string(data[:n]) == "probe"
}

// dial opens a TCP connection from a port of a host, which others may use as well; port 0 is any.
func dial(t *testing.T, h *netns.Host, port uint16, to netip.AddrPort, timeout time.Duration) (net.Conn, error) {
	t.Helper()
	var conn net.Conn
	err := h.Do(func() (err error) {
		d := net.Dialer{Timeout: timeout, FallbackDelay: -1, Control: reuse}
		if port != 0 {
			d.LocalAddr = &net.TCPAddr{Port: int(port)}
		}
		conn, err = d.DialContext(t.Context(), "tcp", to.String())
		return err
	})
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

// listen listens for TCP connections at all addresses of a host, at a port that others may use as well.
func listen(t *testing.T, h *netns.Host, port uint16) net.Listener {
	t.Helper()
	var ln net.Listener
	if err := h.Do(func() (err error) {
		ln, err = (&net.ListenConfig{Control: reuse}).Listen(t.Context(), "tcp", fmt.Sprintf(":%d", port))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func reuse(_, _ string, raw syscall.RawConn) error {
	var err error
	if control := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}); control != nil {
		return control
	}
	return err
}

// mappedTCP is where a connection from a port comes from, as the listener sees it.
func mappedTCP(t *testing.T, h *netns.Host, port uint16, ln net.Listener, to netip.AddrPort) netip.AddrPort {
	t.Helper()
	if _, err := dial(t, h, port, to, patience); err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	from, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}
