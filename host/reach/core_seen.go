package reach

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// sighting is what the other end of one connection says it sees this host at. It is taken once for a connection, when
// that is identified: a QUIC server follows a NAT that has changed its mind without a word, so only a new connection
// tells of a new address.
type sighting struct {
	from  peer.ID
	at    netip.Addr   // the other end's address, as far as it shows
	local uint16       // the port of this end
	seen  ma.Multiaddr // plain
	when  time.Time
}

// sighted takes what identify says of a connection.
func (c *core) sighted(conn string, from peer.ID, remote, local, seen ma.Multiaddr) {
	if !plain(seen) || kindOf(remote) == kindNone {
		return
	}
	c.seen[conn] = sighting{from: from, at: ipOf(remote), local: portOf(local), seen: seen, when: c.now}
	if l := c.links[conn]; l != nil {
		l.identified = true
	}
	c.moved()
}

// moved starts the attempts anew if this host is seen at an address that it was not seen at before. That it is seen at
// one less is no news: a connection has ended.
func (c *core) moved() {
	now := c.outside()
	if slices.ContainsFunc(now, func(a ma.Multiaddr) bool { return !slices.ContainsFunc(c.known, a.Equal) }) {
		c.known = now
		c.lastMove = c.now
		c.retryAll()
	}
	c.changed = true
}

// believed returns the sightings that count: those of the relays, and of peers that carry a relayed connection right now.
// Another peer could name any address, and have the others dial it.
func (c *core) believed() []sighting {
	var out []sighting
	for _, s := range c.seen {
		if c.relayOf(s.from) != nil || c.carries(s.from) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b sighting) int {
		return cmp.Or(a.when.Compare(b.when), a.seen.Compare(b.seen))
	})
	return out
}

// outside returns the addresses that this host is seen at and that others may use: those of connections that left from
// a listening port.
func (c *core) outside() []ma.Multiaddr {
	out := append(c.seenBy(true), c.seenBy(false)...)
	slices.SortFunc(out, ma.Multiaddr.Compare)
	return slices.CompactFunc(out, ma.Multiaddr.Equal)
}

// seenBy is outside by this host's relays, or by other peers that carry something. A host without relays has the others
// only. The newest of each relay, transport and version of IP counts.
func (c *core) seenBy(ours bool) []ma.Multiaddr {
	type key struct {
		from peer.ID
		kind kind
		four bool
	}
	last := map[key]ma.Multiaddr{}
	for _, s := range c.believed() {
		if slices.Contains(c.listening, port{kindOf(s.seen), s.local}) && ours == (c.relayOf(s.from) != nil || len(c.relays) == 0) {
			last[key{s.from, kindOf(s.seen), ipOf(s.seen).Is4()}] = s.seen
		}
	}
	return slices.SortedFunc(maps.Values(last), ma.Multiaddr.Compare)
}

// mapping tells the kind of NAT by the addresses that relays at different addresses see, over IPv4 where there is any.
func (c *core) mapping(k kind) Mapping {
	seen := map[netip.Addr]ma.Multiaddr{} // by the relay's address
	for _, four := range []bool{true, false} {
		for _, s := range c.believed() {
			if kindOf(s.seen) == k && ipOf(s.seen).Is4() == four && slices.Contains(c.listening, port{kindOf(s.seen), s.local}) {
				seen[s.at] = s.seen
			}
		}
		if len(seen) > 0 {
			break
		}
	}
	m := MappingUnknown
	var first ma.Multiaddr
	for _, a := range seen {
		switch {
		case slices.Contains(c.machine, ipOf(a)):
			return MappingNone
		case m == MappingUnknown:
			m, first = MappingSomeNAT, a
		case !a.Equal(first):
			return MappingSymmetric
		default:
			m = MappingIndependent
		}
	}
	return m
}

// own returns this host's addresses, without circuits, that are in the scopes from least to most, and that no NAT is
// in front of: of its interfaces, mapped by a router or announced.
func (c *core) own(least, most addr.Scope) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range c.addrs {
		if s := addr.ScopeOf(a); plain(a) && s >= least && s <= most && s != addr.Unusable {
			out = append(out, a)
		}
	}
	return out
}

// offerFor returns what is offered to a peer on a connection through a relay whose own address reaches as far as realm. What
// peers say that are no relays of this host's comes last: it must not take the place of what is known.
func (c *core) offerFor(realm addr.Scope) offer {
	all := slices.Concat(c.seenBy(true), c.own(max(realm, addr.Loopback), addr.Public), c.seenBy(false))
	return offer{
		addrs: pick(all, realm, nil), public: c.public(),
		udp: c.mapping(kindQUIC), tcp: c.mapping(kindTCP),
	}
}

// nearby returns the addresses for a peer behind the same NAT, on a connection through a relay of that realm.
func (c *core) nearby(realm addr.Scope) []ma.Multiaddr {
	if realm <= addr.Private {
		return nil // they are in the offer
	}
	return pick(c.own(addr.Private, addr.Private), addr.Private, nil)
}
