package doctor

import (
	"strings"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/protocols/pathinfo"
)

const nameReached = "reached"

// Reached judges whether others get to a node that is to be public, by what they met that were asked to dial it.
func Reached(views []pathinfo.View) Check {
	tcp, udp := arrivals(views)
	switch {
	case len(views) == 0:
		return unknown(nameReached, "there is nobody to ask for a dial").todo("join a node to it, and run this again")
	case tcp == 0 && udp == 0:
		return fail(nameReached, "none of the %s that were asked gets to it by a connection of its own", count(len(views), "node")).
			todo("let TCP and UDP in at its port, in its firewall and its provider's; if it is behind a 1:1 NAT, start it with --announce HOST[:PORT]")
	case udp == 0 && tcp > 1:
		return fail(nameReached, "%s get to it over TCP and none over UDP: its UDP port is closed", count(tcp, "node")).
			todo("let UDP in at the same port, in its firewall and its provider's: without it direct connections are slower to come, or do not")
	case udp == 0:
		return warn(nameReached, "1 node gets to it over TCP and not over UDP: UDP is blocked here or there").
			todo("let UDP in at the same port, in its firewall and its provider's")
	case tcp == 0:
		return warn(nameReached, "%s get to it over UDP and none over TCP: its TCP port is closed", count(udp, "node")).
			todo("let TCP in at the same port, in its firewall and its provider's: nodes whose network blocks UDP need it")
	default:
		return pass(nameReached, "%s get to it over TCP, %d over UDP", count(tcp, "node"), udp)
	}
}

// arrivals counts who of those asked got to the node over TCP and over UDP.
func arrivals(views []pathinfo.View) (tcp, udp int) {
	for _, v := range views {
		byTCP, byUDP := false, false
		for _, m := range v.Dialed {
			if a, err := ma.NewMultiaddr(m.Addr); err == nil && m.Err == "" && addr.ScopeOf(a) != addr.Loopback {
				byUDP = byUDP || strings.Contains(m.Addr, "/udp/")
				byTCP = byTCP || strings.Contains(m.Addr, "/tcp/")
			}
		}
		if byTCP {
			tcp++
		}
		if byUDP {
			udp++
		}
	}
	return tcp, udp
}
