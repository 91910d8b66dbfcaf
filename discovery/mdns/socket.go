package mdns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/lynn9388/p2p/host"
)

// hops is the hop limit of what is sent (RFC 6762, section 11).
const hops = 255

// writeTimeout bounds a write to a socket whose buffer is full.
const writeTimeout = 200 * time.Millisecond

func group(v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0xff, 0x02, 15: 0xfb})
	}
	return netip.AddrFrom4([4]byte{224, 0, 0, 251})
}

// socket is a UDP socket that has joined the group on one interface. Other programs of the machine, such as a system's
// own responder, and other nodes share the port.
type socket struct {
	pc    net.PacketConn
	v4    *ipv4.PacketConn
	v6    *ipv6.PacketConn
	index int
	group netip.Addr
	dst   *net.UDPAddr
	told  bool           // the system tells where packets came in
	links []netip.Prefix // of the interface
}

// openSocket joins the group on an interface.
func openSocket(id linkID, iface host.Interface) (_ conn, err error) {
	ifi := &net.Interface{Index: iface.Index, Name: iface.Name, Flags: iface.Flags}
	s := &socket{index: iface.Index, group: group(id.v6), links: iface.Addrs}
	s.dst = net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.group, port))
	if s.pc, err = listenPort(id.v6, iface.Index); err != nil {
		return nil, fmt.Errorf("open UDP port %d: %w", port, err)
	}
	defer func() {
		if err != nil {
			_ = s.pc.Close()
		}
	}()
	join := &net.UDPAddr{IP: s.dst.IP}
	if id.v6 {
		s.dst.Zone = iface.Name
		s.v6 = ipv6.NewPacketConn(s.pc)
		s.told = s.v6.SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst, true) == nil
		err = errors.Join(s.v6.JoinGroup(ifi, join), s.v6.SetMulticastInterface(ifi), s.v6.SetMulticastLoopback(true),
			s.v6.SetMulticastHopLimit(hops))
	} else {
		s.v4 = ipv4.NewPacketConn(s.pc)
		s.told = s.v4.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true) == nil
		err = errors.Join(s.v4.JoinGroup(ifi, join), s.v4.SetMulticastInterface(ifi), s.v4.SetMulticastLoopback(true),
			s.v4.SetMulticastTTL(hops))
	}
	if err != nil {
		return nil, fmt.Errorf("join %v: %w", s.group, err)
	}
	return s, nil
}

func (s *socket) read(b []byte) (n int, err error) {
	for {
		var index int
		var dst net.IP
		var from net.Addr
		if s.v6 != nil {
			var cm *ipv6.ControlMessage
			if n, cm, from, err = s.v6.ReadFrom(b); err == nil && cm != nil {
				index, dst = cm.IfIndex, cm.Dst
			}
		} else {
			var cm *ipv4.ControlMessage
			if n, cm, from, err = s.v4.ReadFrom(b); err == nil && cm != nil {
				index, dst = cm.IfIndex, cm.Dst
			}
		}
		if err != nil || s.fromLink(index, dst, from) {
			return n, err
		}
	}
}

// fromLink tells whether a packet came from the link: what was sent to this host alone may come from anywhere, what came to
// the group comes from the link. A system that does not tell that leaves the sender's address.
func (s *socket) fromLink(index int, dst net.IP, from net.Addr) bool {
	if s.told {
		return index == s.index && dst.IsMulticast()
	}
	u, ok := from.(*net.UDPAddr)
	if !ok {
		return false
	}
	ip := u.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(s.links, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func (s *socket) write(b []byte) error {
	if err := s.pc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := s.pc.WriteTo(b, s.dst)
	return err
}

func (s *socket) close() error { return s.pc.Close() }
