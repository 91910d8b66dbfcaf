package cli

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/internal/addr"
)

// The profiles of "p2p run".
const (
	profileLAN   = "lan"
	profileWAN   = "wan"
	profileRelay = "relay"
)

// checkProfile finds flags that do not go with the profile.
func (o runOptions) checkProfile() error {
	switch o.profile {
	case "", profileLAN, profileWAN, profileRelay:
	default:
		return usagef("--profile %s: use lan, wan or relay", o.profile)
	}
	switch {
	case o.open && o.allow != "":
		return usagef("--open and --allow: use one of them")
	case o.beyondLink() && !o.open && o.allow == "":
		return usagef("--profile %s: say who may connect and call: --allow FILE with one peer ID a line, or --open for everybody who finds this node", o.profile)
	case o.noPortMapping && o.profile != profileWAN:
		return usagef("--no-port-mapping: only --profile wan asks for a mapping: leave the flag out")
	}
	if _, _, err := addr.SplitHostPort(o.webSocket); o.webSocket != "" && err != nil {
		return usagef("--websocket %s: %s", o.webSocket, err)
	}
	return nil
}

// profile is the name of the profile.
func (s *session) profile() string { return cmp.Or(s.opts.profile, profileLAN) }

// beyondLink tells whether strangers may reach the node.
func (o runOptions) beyondLink() bool { return o.profile == profileWAN || o.profile == profileRelay }

// isRelay tells whether a peer is one of the relays that were named.
func (s *session) isRelay(id peer.ID) bool {
	return s.opts.profile == profileWAN && slices.ContainsFunc(s.opts.join, func(place string) bool {
		info, err := addr.ParseJoin(place)
		return err == nil && info.ID == id
	})
}

// joins are the places to join that the profile does not join by itself.
func (s *session) joins() []string {
	if s.opts.profile == profileWAN {
		return nil // they are the relays
	}
	return s.opts.join
}

func (s *session) options() []p2p.Option {
	o := s.opts
	opts := []p2p.Option{o.profileOption()}
	if o.profile != profileRelay {
		opts = append(opts, p2p.WithDiscovery(s.mdns))
	}
	opts = append(opts, p2p.WithName(o.name), p2p.WithNetwork(o.network), p2p.WithAnnounce(o.announce...),
		p2p.WithTags(o.tags...), p2p.WithLogger(s.log))
	for _, sometimes := range []struct {
		set    bool
		option func() p2p.Option
	}{
		{s.home != "", func() p2p.Option { return p2p.WithHome(s.home) }},
		{o.dht, p2p.WithDHT},
		{o.allow != "", func() p2p.Option { return p2p.WithAllowFile(o.allow) }},
		{o.open, p2p.WithOpen},
		{o.webSocket != "", func() p2p.Option { return p2p.WithWebSocket(o.webSocket) }},
		{o.noPortMapping, p2p.WithoutPortMapping},
	} {
		if sometimes.set {
			opts = append(opts, sometimes.option())
		}
	}
	return opts
}

func (o runOptions) profileOption() p2p.Option {
	switch o.profile {
	case profileWAN:
		return p2p.WAN(o.join...)
	case profileRelay:
		return p2p.Relay()
	default:
		return p2p.LAN()
	}
}

// privateRelay says that a relay is of use in its own network only, and how to change that; "" if it is not so.
func (s *session) privateRelay() string {
	if s.opts.profile != profileRelay || len(s.opts.announce) > 0 || s.localOnly() {
		return ""
	}
	for _, a := range s.node.Addrs() {
		if addr.ScopeOf(a) == addr.Public {
			return ""
		}
	}
	return "this relay has private addresses only, so nobody beyond its own network reaches it: if it is behind a 1:1 NAT or a forwarded port, start it with --announce HOST[:PORT]"
}

// access says who may connect and call.
func (s *session) access() string {
	switch {
	case s.opts.allow != "":
		return "the peers listed in " + s.opts.allow
	case s.localOnly():
		return "every process of this machine"
	default:
		return fmt.Sprintf("every node of the network %q that reaches this one; --allow FILE closes it", s.opts.network)
	}
}
