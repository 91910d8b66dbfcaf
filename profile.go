package p2p

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// A profile is the kind of network that a node is made for.
type profile string

const (
	profileLAN   profile = "LAN"
	profileWAN   profile = "WAN"
	profileRelay profile = "Relay"
)

// LAN is the profile that every node starts from. It sets exactly this:
//
//   - nodes of the same network name are found by multicast DNS on this machine and on its links, and by asking
//     neighbors for their neighbors;
//   - no public address beyond the links is contacted, except what JoinNetwork and calls to a full address name, and from
//     there on those whom the nodes there name, also in the table of [WithDHT];
//   - every node of the network name that reaches this one may call it, until an allow list or an authorizer says
//     otherwise.
func LAN() Option { return setProfile(profileLAN, nil) }

// WAN is the profile of a node that may be behind a NAT, or whose peers may be. Each relay is a node with the profile
// [Relay], given as ID@host:port, which stands for TCP and QUIC, or as a multiaddr that names TCP, QUIC or WebSocket and
// ends in /p2p/ID; one of them is enough. The start fails for a relay without an ID and says who answers there, in the form
// to use. WAN is [LAN], and beyond that it sets exactly this:
//
//   - the relays are joined, as by JoinNetwork, and connected to by TCP and by QUIC, so that both outside addresses of a
//     NAT are known; a connection that is lost is made again at once. Where neither gets through, WebSocket is tried,
//     through the proxy that HTTPS_PROXY names if there is one;
//   - unless the node finds that others reach it, it has the relays carry connections to it, and announces that;
//   - the relays are asked to dial this node back (AutoNAT v2), which is how it learns whether others reach it. A node
//     that is public gives its place at the relays up;
//   - a relayed connection is replaced by a direct one as soon as both sides get one through their NATs; for that the
//     two tell each other their addresses, those of the local network only when both seem to be on one;
//   - TCP connections to public addresses leave from the listening port;
//   - the router is asked for a port mapping (UPnP, NAT-PMP), unless [WithoutPortMapping] says otherwise;
//   - the node takes part in the network's own distributed table ([WithDHT]): as a client while it is behind a NAT, as a
//     server when it is public. Services and peers are found there, and among the neighbors of the relays;
//   - the start fails without [WithAllow], [WithAllowFile], [WithAuthorizer] or an explicit [WithOpen];
//   - a relay that no list names may be connected and carry, and its calls are refused, each of them; in an open node, or
//     with an authorizer alone, it may call as everybody may.
//
// No other host is contacted than the relays, their network's nodes and the router. Without a relay nobody tells the
// node whether it is public, and nobody carries: it is reached only where its addresses, or a mapped port, are.
func WAN(relays ...string) Option { return setProfile(profileWAN, relays) }

// Relay is the profile of a node that others can reach, and that serves those that cannot be reached. Behind a 1:1 NAT
// or a forwarded port it needs [WithAnnounce]. It takes from [LAN] the exchange with neighbors, and beyond that sets
// exactly this:
//
//   - it carries connections between nodes, within limits (see [host.RelayConfig]), and neither reads nor calls what it
//     carries;
//   - it dials nodes back that ask whether they are reachable (AutoNAT v2 server), at public addresses that they name; for
//     one at another IP address than their own they pay in advance, with more bytes than the dial costs;
//   - it is a server of the network's own distributed table ([WithDHT]);
//   - more connections come from one public address than otherwise: 512, so that an office fits behind one;
//   - no multicast DNS: nothing is sent to the link it stands on;
//   - the start fails without [WithAllow], [WithAllowFile] or an explicit [WithOpen]: the list says who may connect, call
//     and be carried, both ends of each connection. An authorizer decides calls and nothing else, so it is not enough.
//
// It contacts nobody by itself but those who have connected, those whom JoinNetwork names, and the nodes that these
// name, as neighbors or in the table.
func Relay() Option { return setProfile(profileRelay, nil) }

func setProfile(p profile, relays []string) Option {
	return optionFunc(func(c *config) error {
		c.profile, c.relays = p, nil
		for _, s := range relays {
			r, err := parseRelay(s)
			if err != nil {
				return fmt.Errorf("WAN: %w", err)
			}
			c.relays = append(c.relays, r)
		}
		return nil
	})
}

// namedRelay is a relay as the user named it.
type namedRelay struct {
	text string
	info peer.AddrInfo // without an ID: the start says who answers there
}

func parseRelay(s string) (namedRelay, error) {
	info, err := addr.ParseJoin(s)
	if err != nil {
		return namedRelay{}, fmt.Errorf("relay: %w", err)
	}
	for _, a := range info.Addrs {
		if _, err := a.ValueForProtocol(ma.P_CIRCUIT); err == nil {
			return namedRelay{}, fmt.Errorf("relay %q is itself reached through a relay: name one that can be dialed", s)
		}
	}
	return namedRelay{text: s, info: info}, nil
}

// WithoutPortMapping leaves the router alone: it is not asked to map a port to this node, as [WAN] does.
func WithoutPortMapping() Option {
	return optionFunc(func(c *config) error {
		c.noMapping = true
		return nil
	})
}

// WithWebSocket has the node listen for WebSocket connections too, at host:port or :port: where firewalls let nothing
// pass but what looks like the web, port 443 or 80 gets through. It is for a node that is public, above all a [Relay]. It
// may be the port that the node listens at anyway, which then takes TCP and WebSocket: a node that joins a relay given as
// ID@host:port tries WebSocket there as well, so that nothing else need be known.
func WithWebSocket(address string) Option {
	return optionFunc(func(c *config) error {
		if _, _, err := addr.SplitHostPort(address); err != nil {
			return fmt.Errorf("WithWebSocket(%q): %w", address, err)
		}
		c.webSocket = address
		return nil
	})
}

// checkAccess refuses a node that strangers reach and of which nobody has said who may use it.
func (c *config) checkAccess() error {
	switch {
	case c.open || c.listed():
		return nil
	case c.profile == profileWAN && c.authorize == nil:
		return errors.New("p2p: WAN: nothing says who may connect and call: list the IDs with WithAllow or WithAllowFile, decide each call with WithAuthorizer, or let in everybody who finds this node with WithOpen")
	case c.profile == profileRelay && c.authorize == nil:
		return errors.New("p2p: Relay: nothing says who may connect and be relayed: list the IDs with WithAllow or WithAllowFile, or let in everybody who finds this node with WithOpen")
	case c.profile == profileRelay:
		return errors.New("p2p: Relay: an authorizer decides calls, not who is relayed: list the IDs with WithAllow or WithAllowFile as well")
	}
	return nil
}
