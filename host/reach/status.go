package reach

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Mapping tells how the NATs in front of the host give out outside ports (RFC 4787, section 4.1), as far as the relays
// see it: one relay tells whether there is a NAT, two relays with different addresses tell of which kind it is.
type Mapping int

// The kinds of mapping. Greater ones are harder to get through.
const (
	// MappingUnknown: no relay has told yet.
	MappingUnknown Mapping = iota
	// MappingNone: relays see an address of this machine, no NAT is in between.
	MappingNone
	// MappingSomeNAT: there is a NAT; of which kind cannot be known with one relay.
	MappingSomeNAT
	// MappingIndependent: all relays see one outside address, so other peers can use it as well.
	MappingIndependent
	// MappingSymmetric: each relay sees another outside address, so none of them is of use to others.
	MappingSymmetric
)

// String returns the kind in words.
func (m Mapping) String() string {
	switch m {
	case MappingNone:
		return "no NAT"
	case MappingSomeNAT:
		return "NAT"
	case MappingIndependent:
		return "endpoint-independent NAT"
	case MappingSymmetric:
		return "symmetric NAT"
	default:
		return "unknown"
	}
}

// Filtering tells whom the NATs and firewalls in front of the host let in (RFC 4787, section 5), as far as a relay that
// dials back from another port can know.
type Filtering int

// The kinds of filtering.
const (
	// FilteringUnknown: no relay has tried yet.
	FilteringUnknown Filtering = iota
	// FilteringOpen: a relay came in from a port that the host had never sent to. Whether somebody at an address that it
	// had never sent to would come in as well, no relay of its own can know.
	FilteringOpen
	// FilteringPort: only those ports come in that the host has sent to.
	FilteringPort
)

// String returns the kind in words.
func (f Filtering) String() string {
	switch f {
	case FilteringOpen:
		return "open to other ports"
	case FilteringPort:
		return "closed to ports that were not sent to"
	default:
		return "unknown"
	}
}

// Status is how the host can be reached at one moment.
type Status struct {
	// Reachability is public once a relay has reached one of the host's own, mapped or announced addresses from outside.
	// It is private when none could be, and unknown before the first answer.
	Reachability network.Reachability

	// UDP and TCP are the kinds of mapping by transport, Mapping is the harder of both.
	Mapping, UDP, TCP Mapping
	// Filtering is what is known of who comes in.
	Filtering Filtering

	// Observed are the addresses that relays see the host at, without repetitions.
	Observed []ma.Multiaddr
	// Reached are the host's addresses that a relay has reached from outside.
	Reached []ma.Multiaddr
	// Circuits are the addresses at which the host can be reached through its relays.
	Circuits []ma.Multiaddr

	// Relays are the relays in the order of the configuration.
	Relays []RelayStatus
}

// RelayStatus is what is known of one relay at one moment.
type RelayStatus struct {
	ID peer.ID
	// Addrs are the addresses that it was named with.
	Addrs []ma.Multiaddr
	// Connected are the transports of the connections to it: "quic", "tcp", "websocket". Empty: not connected.
	Connected []string
	// Since is when it was connected, or when the last connection to it was lost; zero if it never was connected.
	Since time.Time
	// RTT is the round trip to it, 0 before it was measured.
	RTT time.Duration

	// Reserved tells whether it holds a reservation of this host, and Expires until when; it is renewed long before.
	Reserved bool
	Expires  time.Time
	// LimitData and LimitDuration are what it lets one relayed connection carry in each direction and last; 0 is no
	// limit or not known.
	LimitData     uint64
	LimitDuration time.Duration

	// LastError says in one line why it is not connected, or gives no reservation. Empty when all is well.
	LastError string
}

// Role is the part that the host played in an attempt.
type Role string

// The roles. The client of an attempt is the client of the handshake, whichever side began the exchange.
const (
	RoleClient Role = "client"
	RoleServer Role = "server"
)

// Attempt is one try to get a direct connection to a peer.
type Attempt struct {
	// Time is when it began, and Took how long it lasted.
	Time time.Time
	Took time.Duration
	// Role is the host's part; empty when the exchange with the peer failed before that was agreed.
	Role Role
	// Met is what each address of the peer met.
	Met []Met
	// Err is why it failed, in one line; empty for a success.
	Err string
}

// Met is what the dials to one address of a peer met in an [Attempt].
type Met struct {
	Addr ma.Multiaddr
	// How is "dial" for an address that the peer says anybody can reach, "punch" for one that both dial at once, and
	// "lan" for a private one.
	How string
	// Took is how long it lasted.
	Took time.Duration
	// Err is empty when a connection came up.
	Err string
}

// MaxAttempts is how many attempts are remembered of one peer.
const MaxAttempts = 16

// Status returns how the host can be reached now.
func (r *Reach) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.core
	s := Status{
		Reachability: c.reachability(),
		UDP:          c.mapping(kindQUIC),
		TCP:          c.mapping(kindTCP),
		Filtering:    c.filtering,
		Observed:     c.outside(),
		Circuits:     slices.Clone(c.announced.addrs),
	}
	s.Mapping = max(s.UDP, s.TCP)
	for _, k := range c.checks {
		if k.reached {
			s.Reached = append(s.Reached, k.addr)
		}
	}
	slices.SortFunc(s.Reached, ma.Multiaddr.Compare)
	for _, k := range c.relays {
		s.Relays = append(s.Relays, c.relayStatus(k))
	}
	return s
}

func (c *core) relayStatus(r *relay) RelayStatus {
	s := RelayStatus{
		ID: r.id, Addrs: slices.Clone(r.addrs), Since: r.since, RTT: r.rtt, Reserved: r.held && c.joined(r) && !c.public(),
		LimitData: r.data, LimitDuration: r.duration,
	}
	if s.Reserved {
		s.Expires = r.expires
	}
	for k := kindNone + 1; k < kinds; k++ {
		if c.good(r, k) {
			s.Connected = append(s.Connected, k.String())
		}
	}
	switch {
	case len(s.Connected) == 0:
		s.LastError = r.text()
	case !s.Reserved && !c.public():
		s.LastError = r.reserveText
	}
	return s
}

// Attempts returns the last attempts to get a direct connection to p, the newest last, at most [MaxAttempts]. They are
// kept for some minutes after the last connection to p has ended.
func (r *Reach) Attempts(p peer.ID) []Attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.core.peers[p]; t != nil {
		return slices.Clone(t.attempts)
	}
	return nil
}
