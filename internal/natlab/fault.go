//go:build linux

package natlab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Cut cuts the line between the site and the Internet: packets are lost both ways, and nobody is told.
func (r *Router) Cut() {
	r.lab.tb.Helper()
	r.line().cut.Store(true)
}

// Mend undoes Cut.
func (r *Router) Mend() {
	r.lab.tb.Helper()
	r.line().cut.Store(false)
}

// Sever cuts the way between this site and another, both ways; each still reaches the rest of the Internet.
func (r *Router) Sever(other *Router) { r.between(other, true) }

// Join undoes Sever.
func (r *Router) Join(other *Router) { r.between(other, false) }

func (r *Router) between(other *Router, lost bool) {
	r.lab.internet.sever(r.line(), other.line(), lost)
	r.lab.internet.sever(other.line(), r.line(), lost)
}

// line is the site's own line; a customer's is the carrier's.
func (r *Router) line() *place {
	for r.parent != nil {
		r = r.parent
	}
	return r.place
}

// FlushMappings makes the router, and those before it, forget all mappings and connections, as when they are switched off
// and on. Nothing goes out meanwhile: a packet would bring its mapping back.
func (r *Router) FlushMappings() {
	r.lab.tb.Helper()
	if r.parent != nil {
		r.parent.FlushMappings()
	}
	if r.kind == None {
		return // it knows nothing
	}
	r.nft("add element inet filter stopped { br0 }\n")
	r.lab.must(r.host.Do(flushConntrack), "flush mappings")
	text := "flush set inet filter stopped\n"
	if r.kind.translates() && r.kind != Symmetric {
		for _, proto := range []string{"tcp", "udp"} {
			for _, name := range []string{"map inet nat " + proto + "-out", "map inet nat " + proto + "-any", "map inet nat " + proto + "-from", "set inet nat " + proto + "-taken"} {
				text = "flush " + name + "\n" + text
			}
		}
	}
	r.nft(text)
}

// Renumber gives the router another outside IPv4 address, as a provider does at night, and returns it. All mappings are
// forgotten. Routers without NAT do not have that: renumber the hosts behind them.
func (r *Router) Renumber() netip.Addr {
	r.lab.tb.Helper()
	switch {
	case !r.kind.translates():
		r.lab.tb.Fatalf("natlab: a router of kind %v has no outside address for its hosts", r.kind)
	case r.parent != nil:
		r.addr, _ = r.host.Renumber("wan")
	default:
		old := r.addr
		r.addr = r.addr.Next()
		r.host.IPRun("addr", "add", r.addr.String()+"/32", "dev", "wan")
		r.host.IPRun("addr", "del", old.String()+"/32", "dev", "wan")
		r.lab.internet.route(netip.PrefixFrom(old, 32), nil)
		r.lab.internet.route(netip.PrefixFrom(r.addr, 32), r.place)
	}
	r.FlushMappings()
	return r.addr
}

// deleteConntrack is IPCTNL_MSG_CT_DELETE of linux/netfilter/nfnetlink_conntrack.h; without a tuple it deletes all.
const deleteConntrack = 2

// flushConntrack empties the table of connections of the namespace that it is called in.
func flushConntrack() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	const length = unix.SizeofNlMsghdr + 4 // and a nfgenmsg: any family, version 0, no resource
	request := binary.NativeEndian.AppendUint32(nil, length)
	request = binary.NativeEndian.AppendUint16(request, unix.NFNL_SUBSYS_CTNETLINK<<8|deleteConntrack)
	request = binary.NativeEndian.AppendUint16(request, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	request = append(request, make([]byte, length-len(request))...)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, 4096)
	size, _, err := unix.Recvfrom(fd, answer, 0)
	switch {
	case err != nil:
		return os.NewSyscallError("recvfrom", err)
	case size < unix.SizeofNlMsghdr+4:
		return fmt.Errorf("netlink: an answer of %d bytes", size)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return os.NewSyscallError("delete conntrack", unix.Errno(-code))
	}
	return nil
}
