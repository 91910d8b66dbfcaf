package doctor

import (
	"net"
	"strings"

	"github.com/lynn9388/p2p/discovery/mdns"
	"github.com/lynn9388/p2p/host"
)

const (
	nameInterfaces = "interfaces"
	nameMulticast  = "multicast"
)

// Interfaces tells which interfaces of the machine lead somewhere.
func Interfaces(all []host.Interface, err error) Check {
	if err != nil {
		return unknown(nameInterfaces, "%v", err)
	}
	var up []string
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 || i.Virtual() || len(i.Addrs) == 0 {
			continue
		}
		var addrs []string
		for _, a := range i.Addrs {
			addrs = append(addrs, a.Addr().String())
		}
		up = append(up, i.Name+" ("+strings.Join(addrs, ", ")+")")
	}
	if len(up) == 0 {
		return fail(nameInterfaces, "none is up but this machine's own").todo("plug in a cable, or join a wireless network")
	}
	return pass(nameInterfaces, "up: %s", strings.Join(up, ", "))
}

// Multicast tells what the search on the local links met: whether nodes can be found there at all, and whether any were.
func Multicast(st mdns.State) Check {
	switch st.Reason {
	case mdns.Found:
		return pass(nameMulticast, "%s heard by multicast DNS: %s", count(st.Peers, "node"), st.Text)
	case mdns.Silent:
		if looped(st) {
			return pass(nameMulticast, "packets pass, and no other node of the network was heard on the link")
		}
		return warn(nameMulticast, "%s", st.Text)
	case mdns.Starting, mdns.Stopped:
		return unknown(nameMulticast, "%s", st.Text)
	case mdns.Refused, mdns.NotLooped, mdns.NoInterface:
		return fail(nameMulticast, "%s", st.Text).todo("until then, join nodes of the link by their addresses")
	case mdns.NoAddress, mdns.LocalOnly, mdns.Container:
		return warn(nameMulticast, "%s", st.Text)
	}
	return unknown(nameMulticast, "%s", st.Text)
}

// looped tells whether the node has heard its own packets on an interface that leads to others.
func looped(st mdns.State) bool {
	for _, i := range st.Interfaces {
		if !i.Loopback && i.Used && i.Looped {
			return true
		}
	}
	return false
}
