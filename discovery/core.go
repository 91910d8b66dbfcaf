package discovery

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"
)

// The figures of the keeper, each with its reason.
const (
	// maxDials bounds the dials under way: enough that a dead address delays nobody, few enough for any router.
	maxDials = 8
	// lateFor is how late a timer is on a machine that is too busy for maxDials.
	lateFor = 50 * time.Millisecond
	// grace is how long a peer over the high mark may stay, so that it can ask for other neighbors.
	grace = 2 * time.Second
	// reserve is how many of the oldest neighbors that this node dialed itself are never closed to make room: those
	// who only come by themselves cannot surround it.
	reserve = 2
	// politeness is how long one of two that found each other waits for the other to dial.
	politeness = 150 * time.Millisecond
	// steady is how long a connection must last before earlier failures are forgotten.
	steady = 10 * time.Second
	// maxLost bounds how many lost neighbors are redialed at any time.
	maxLost = 64
	// lostFor is how long a lost neighbor is redialed.
	lostFor = 24 * time.Hour
	// pingEvery and pingTimeout find connections whose other end vanished without a word.
	pingFirst   = time.Second // soon, for the round trip; not while everybody connects
	pingEvery   = 10 * time.Second
	pingTimeout = 5 * time.Second
	// checkTimeout is the ping's when there is a reason to doubt a connection.
	checkTimeout = 1500 * time.Millisecond
	// identifyWithin is how long a new connection may take to say what it is for.
	identifyWithin = 10 * time.Second
	// memberWithin is how long a peer that does not say it is of this network may take to say so after all.
	memberWithin = 2 * time.Second
	// recordWithin is how long a peer may take to make a new record after its addresses have changed: libp2p looks each
	// 5 s. Until then it names old addresses.
	recordWithin = 10 * time.Second
	// recheck is how often what others decide (Allow, InUse) is asked again.
	recheck = 500 * time.Millisecond
	// unreachableAfter and unreachableFor are how many dials must fail, and for how long, before a person is told.
	unreachableAfter = 2
	unreachableFor   = 3 * time.Second
	// maxGuests is how many peers in use are protected from the connection manager besides the neighbors: they must not
	// be able to hold all connections that a host has.
	maxGuests = 128
	// maxBanned bounds how many peers are remembered as disconnected by the user.
	maxBanned = 1000
)

// actionKind is something that the core wants done.
type actionKind int

const (
	actDial    actionKind = iota // dial peer at addrs within timeout, at all of them or (off) without QUIC where there is TCP
	actNear                      // dial peer, which a relay carries, directly at addrs within timeout
	actClose                     // close all connections to peer with code
	actProtect                   // protect peer in the connection manager, or no longer
	actAddrs                     // make what is known of peer by then what the peerstore has of it
	actPing                      // look at all connections to peer, or (on) the far ones, by pings of timeout; close the dead
	actLog                       // tell of event
)

type action struct {
	kind    actionKind
	peer    peer.ID
	addrs   []ma.Multiaddr
	code    network.ConnErrorCode
	timeout time.Duration
	on      bool
	look    lookKind
	event   Event
}

// core decides everything and does nothing: each of its methods takes something that happened at a moment and
// appends to out what is to be done. It has no clock, no goroutine and no lock; [Keeper] gives it all three.
type core struct {
	self   peer.ID
	cfg    KeeperConfig
	now    time.Time
	rng    *rand.Rand
	budget *rate.Limiter // of dials
	notice *rate.Limiter // of complaints that somebody does not answer

	peers     map[peer.ID]*entry
	banned    map[peer.ID]struct{} // disconnected by the user
	inflight  map[peer.ID]struct{} // dials under way
	width     int                  // dials that may be under way
	neighbors int
	protected int                  // neighbors and guests
	connected int                  // peers with a connection
	carriers  map[peer.ID]int      // relays, and how many are reached through each
	tied      func(p peer.ID) bool // tells whether p depends on this node as its relay
	myPorts   func() string        // for the text of complaints

	out    []action
	events []Event
}

type address struct {
	ma.Multiaddr
	explicit bool
	seen     time.Time
}

// entry is what is known of a peer.
type entry struct {
	id     peer.ID
	addrs  []address // newest last
	source string
	direct bool // somebody who would know says that it is there now
	state  State
	since  time.Time

	conns      int
	links      []link
	path       Path
	outbound   bool
	up         time.Time // when the oldest of the unbroken chain of connections came
	newest     time.Time // when the newest came
	identified bool
	member     bool
	wasMember  bool
	neighbor   bool
	protected  bool          // from the connection manager: a neighbor or a guest
	doubted    time.Time     // it does not say that it is a member, since then
	unwanted   bool          // to be closed as soon as it is not in use
	why        closeReason   // why it is closed from here
	left       error         // what PeerLeft says
	closed     time.Time     // when that was asked for
	grace      time.Time     // over the high mark until then
	ping       time.Time     // next
	vigil      time.Time     // next look whether it has to be looked at more often
	rtt        time.Duration //
	agent      string
	lastErr    string

	busy    bool // being dialed
	asked   bool // explicitly, just now
	sticky  bool // named by Connect
	tried   time.Time
	failed  time.Time // since then every dial
	next    time.Time // not dialed before
	fails   int
	full    int
	lost    time.Time // was a neighbor until then, and was not let go
	refused bool      // the last dial, by a machine that is there
	told    bool      // that it does not answer

	record []byte
	seq    uint64
}

func newCore(self peer.ID, cfg KeeperConfig, rng *rand.Rand) *core {
	cfg.Low = cmp.Or(max(cfg.Low, 0), DefaultLow)
	cfg.High = max(cmp.Or(max(cfg.High, 0), DefaultHigh), cfg.Low)
	if cfg.DialRate <= 0 {
		cfg.DialRate = 10
	}
	return &core{
		self: self, cfg: cfg, rng: rng,
		budget: rate.NewLimiter(rate.Limit(cfg.DialRate), max(1, int(2*cfg.DialRate))),
		notice: rate.NewLimiter(rate.Every(10*time.Second), 10),
		peers:  make(map[peer.ID]*entry),
		banned: make(map[peer.ID]struct{}),

		inflight: make(map[peer.ID]struct{}),
		width:    maxDials,
		carriers: make(map[peer.ID]int),
		tied:     func(peer.ID) bool { return false },
		myPorts:  func() string { return "" },
	}
}

func (c *core) do(a action) { c.out = append(c.out, a) }

func (c *core) emit(kind EventKind, e *entry, err error) {
	c.touch(e)
	c.tell(Event{Kind: kind, Peer: e.snapshot(), Err: err, Time: c.now})
}

func (c *core) tell(ev Event) {
	c.events = append(c.events, ev)
	c.do(action{kind: actLog, event: ev})
}

// touch brings the entry's state up to date.
func (c *core) touch(e *entry) {
	s := Known
	switch {
	case e.neighbor:
		s = Neighbor
	case e.conns > 0:
		s = Connected
	case e.busy:
		s = Connecting
	}
	if s != e.state {
		e.state, e.since = s, c.now
	}
}

func (e *entry) multiaddrs() []ma.Multiaddr {
	out := make([]ma.Multiaddr, len(e.addrs))
	for i, a := range e.addrs {
		out[len(out)-1-i] = a.Multiaddr
	}
	return out
}

func (e *entry) snapshot() Peer {
	return Peer{
		ID: e.id, State: e.state, Addrs: e.multiaddrs(), Source: e.source, Agent: e.agent, RTT: e.rtt, Since: e.since,
		LastError: e.lastErr, Member: e.member, Outbound: e.outbound && e.conns > 0, Path: e.path,
	}
}

func (c *core) snapshots() []Peer {
	out := make([]Peer, 0, len(c.peers))
	for _, e := range c.peers {
		out = append(out, e.snapshot())
	}
	slices.SortFunc(out, func(a, b Peer) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func (c *core) allowed(p peer.ID) bool { return c.cfg.Allow == nil || c.cfg.Allow(p) }

func (c *core) inUse(p peer.ID) bool { return c.cfg.InUse != nil && c.cfg.InUse(p) }

// jitter spreads d over three to five quarters of itself.
func (c *core) jitter(d time.Duration) time.Duration {
	return d*3/4 + time.Duration(c.rng.Float64()*float64(d)/2)
}

// errStopped is why a neighbor left that no longer speaks the network's protocol: a node that ends says so first.
var errStopped = errors.New("it stopped")

var errNotMember = errors.New("it does not speak this network's protocol")
