package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host/reach"
	"github.com/lynn9388/p2p/internal/addr"
)

const (
	nameNAT       = "nat"
	nameMapping   = "port mapping"
	nameAnnounced = "announced"
)

// NAT judges what stands between the node and others, by what its relays see.
func NAT(st reach.Status) Check {
	if st.Reachability == network.ReachabilityPublic {
		return pass(nameNAT, "none in the way: a relay came in at %s", join(st.Reached))
	}
	kinds := fmt.Sprintf("UDP: %s, TCP: %s", kind(st.UDP), kind(st.TCP))
	if st.UDP == st.TCP {
		kinds = kind(st.Mapping)
	}
	filter := ""
	if st.Filtering != reach.FilteringUnknown {
		filter = "; " + st.Filtering.String()
	}
	switch st.Mapping {
	case reach.MappingSymmetric:
		return warn(nameNAT, "%s%s: it gives out a new port for each destination, so that nodes behind strict NATs are reached through the relay only", kinds, filter).
			todo("have the router map a port (UPnP, NAT-PMP, or by hand and --announce), or let it keep ports: endpoint-independent mapping")
	case reach.MappingIndependent:
		return pass(nameNAT, "%s%s: direct connections get through most others", kinds, filter)
	case reach.MappingNone:
		return pass(nameNAT, "%s, but nobody comes in unasked%s: a firewall; direct connections are made from both sides at once", kinds, filter)
	case reach.MappingSomeNAT:
		if connected(st) > 1 {
			return unknown(nameNAT, "there is one%s; whether it gives out a new port for each destination, the relays have not told yet", filter)
		}
		return unknown(nameNAT, "there is one%s; whether it gives out a new port for each destination cannot be told by one relay", filter).
			todo("to know it, name a second relay, at another address, with one more --join")
	case reach.MappingUnknown:
	}
	return unknown(nameNAT, "no relay has told yet how it sees this node")
}

// kind is a kind of NAT in words.
func kind(m reach.Mapping) string {
	if m == reach.MappingSomeNAT {
		return "a NAT of unknown kind"
	}
	return m.String()
}

// connected is the number of relays that are.
func connected(st reach.Status) (n int) {
	for _, r := range st.Relays {
		if len(r.Connected) > 0 {
			n++
		}
	}
	return n
}

// Mapping tells whether the router has mapped ports. asked tells whether it was to.
func Mapping(asked bool, mapped []ma.Multiaddr) Check {
	switch {
	case !asked:
		return unknown(nameMapping, "the router is not asked")
	case len(mapped) > 0:
		return pass(nameMapping, "the router lets others in at %s", join(mapped))
	default:
		return unknown(nameMapping, "the router maps no port: it has no UPnP or NAT-PMP, or they are off; none is needed")
	}
}

// Announced judges the addresses that the node tells others. Those of a relay are to be of use beyond its own network.
func Announced(addrs []ma.Multiaddr, announce []string, relay bool) Check {
	var private []string
	for _, s := range announce {
		at, _, err := addr.ParseAnnounce(s)
		if err == nil && addr.ScopeOf(at) != addr.Public && !named(at) {
			private = append(private, s)
		}
	}
	relays := slices.ContainsFunc(addrs, addr.Relayed)
	public := slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool { return addr.Relayed(a) || addr.ScopeOf(a) != addr.Public })
	switch {
	case len(private) > 0:
		return warn(nameAnnounced, "%s is no public address: nobody beyond this network gets there", strings.Join(private, ", ")).todo("announce the address of the NAT in front, with --announce")
	case relay && len(public) == 0 && len(announce) == 0:
		return fail(nameAnnounced, "this relay has private addresses only, so nobody beyond its own network reaches it").
			todo("if it is behind a 1:1 NAT or a forwarded port, start it with --announce HOST[:PORT]")
	case len(announce) > 0:
		return pass(nameAnnounced, "%s", strings.Join(announce, ", "))
	case len(public) > 0:
		return pass(nameAnnounced, "%s", join(public))
	case relays:
		return pass(nameAnnounced, "that it is reached through its relays, and private addresses for its own network")
	default:
		return pass(nameAnnounced, "private addresses, of use in this network only")
	}
}

// named tells whether an address begins with a name.
func named(a ma.Multiaddr) bool {
	return len(a) > 0 && strings.HasPrefix(a[0].Protocol().Name, "dns")
}

// join lists addresses as people write them.
func join(addrs []ma.Multiaddr) string {
	var out []string
	for _, a := range addrs {
		text := a.String()
		if hp, ok := addr.HostPort(a); ok {
			text = hp
		}
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return strings.Join(out, ", ")
}
