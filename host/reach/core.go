package reach

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// actionKind is something that the core wants done.
type actionKind int

const (
	actDial     actionKind = iota // connect to relay over kind at addrs, within timeout
	actPing                       // look within timeout whether the connection conn works
	actClose                      // close the connection conn
	actRetire                     // close the connection conn once nothing is on it
	actReserve                    // ask relay for a reservation
	actProbe                      // ask relay to dial addr
	actAnnounce                   // tell the host of addrs, and whether it is public
	actVerify                     // look whether the direct connections to peer work
	actAttempt                    // try to get a direct connection to peer, for the try-th time in a row, as attempt id
)

type action struct {
	kind    actionKind
	peer    peer.ID
	via     kind
	conn    string
	addr    ma.Multiaddr
	addrs   []ma.Multiaddr
	timeout time.Duration
	try     int
	id      int
	public  network.Reachability
}

// core decides everything and does nothing: each of its methods takes something that happened at a moment, and tick
// appends to out what is to be done. It has no clock, no goroutine and no lock; [Reach] gives it all three.
type core struct {
	now   time.Time
	begun time.Time
	rng   *rand.Rand
	self  peer.ID
	allow func(peer.ID) bool

	relays []*relay
	links  map[string]*link    // connections to relays, by their IDs
	seen   map[string]sighting // by connection
	peers  map[peer.ID]*target

	machine   []netip.Addr   // addresses of this machine's interfaces
	listening []port         // where the host listens
	addrs     []ma.Multiaddr // the host's own: of interfaces, mapped, announced
	known     []ma.Multiaddr // the addresses that the host was last seen at
	linkedAt  time.Time      // when the first connection to a relay came
	lastMove  time.Time      // when the host was last seen at another address than before
	renewed   time.Time      // when the addresses outside were last asked for anew
	renewGap  time.Duration  // how long until that is worth it again

	checks    map[string]*check // of own addresses, by their bytes
	filtering Filtering
	filtered  ma.Multiaddr // the address that filtering was found out with
	filterAt  time.Time    // when to try, after a relay did not
	checking  map[peer.ID]bool

	announced action // the last of its kind
	told      bool   // whether there was one
	changed   bool   // something that others see
	out       []action
}

func newCore(self peer.ID, cfg Config, rng *rand.Rand) *core {
	c := &core{
		rng: rng, self: self, allow: cfg.Allow,
		links:    map[string]*link{},
		seen:     map[string]sighting{},
		peers:    map[peer.ID]*target{},
		checks:   map[string]*check{},
		checking: map[peer.ID]bool{},
		renewGap: renewFirst,
	}
	for _, info := range cfg.Relays {
		if r := c.relayOf(info.ID); r != nil { // named twice
			r.add(info.Addrs)
			continue
		}
		r := &relay{id: info.ID, at: map[place]ma.Multiaddr{}}
		r.add(info.Addrs)
		c.relays = append(c.relays, r)
	}
	for _, r := range c.relays {
		r.addWebSocket()
	}
	return c
}

func (c *core) do(a action) { c.out = append(c.out, a) }

func (c *core) relayOf(p peer.ID) *relay {
	i := slices.IndexFunc(c.relays, func(r *relay) bool { return r.id == p })
	if i < 0 {
		return nil
	}
	return c.relays[i]
}

// jitter spreads d over three to five quarters of itself.
func (c *core) jitter(d time.Duration) time.Duration {
	return d*3/4 + time.Duration(c.rng.Float64()*float64(d)/2)
}

// tick decides what is to be done at this moment and returns when to look again.
func (c *core) tick() time.Time {
	next := c.now.Add(time.Minute)
	soon := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	for _, r := range c.relays {
		c.tickRelay(r, soon)
	}
	for _, l := range c.links {
		c.tickLink(l, soon)
	}
	c.tickChecks(soon)
	c.tickPeers(soon)
	c.announce(soon)
	return next
}

// situation takes the addresses as they are now: of this machine, the ports that the host listens at, and those that it
// says it can be reached at.
func (c *core) situation(machine []netip.Addr, listening []port, addrs []ma.Multiaddr) {
	if slices.Equal(machine, c.machine) && slices.Equal(listening, c.listening) && slices.EqualFunc(addrs, c.addrs, ma.Multiaddr.Equal) {
		return
	}
	gone := len(c.machine) > 0 && !slices.Equal(machine, c.machine)
	c.machine, c.listening, c.addrs = machine, listening, addrs
	c.changed = true
	if gone {
		c.disturbed()
	}
	c.moved() // what left from a port that is listened at now counts
}

// disturbed is told that the network may have changed under the connections: an interface came or went, or the machine
// slept. All connections to relays are looked at, and fresh ones tell where this host is seen now.
func (c *core) disturbed() {
	for _, l := range c.links {
		l.look = c.now
	}
	for _, r := range c.relays {
		r.hurry(c.now)
	}
	for _, k := range c.checks {
		k.next = c.now
	}
	c.filtered = nil
	c.renew(true)
	c.retryAll()
}

// renew asks for fresh connections to all relays, to see the address outside anew. When that brings nothing new it is
// worth it ever more rarely, unless there is a reason by itself.
func (c *core) renew(reason bool) {
	if reason {
		c.renewGap = renewFirst
	} else if c.now.Sub(c.renewed) < c.renewGap {
		return
	} else if c.lastMove.Before(c.renewed) {
		c.renewGap = min(2*c.renewGap, renewMost)
	} else {
		c.renewGap = renewFirst
	}
	c.renewed = c.now
	for _, r := range c.relays { // a connection over TCP ends when its mapping does
		if s := &r.slots[kindQUIC]; c.good(r, kindQUIC) {
			s.fresh, s.next = true, c.now
		}
	}
}

// How often the address outside is asked for anew when a direct connection fails: at once, since a router that has
// forgotten its mappings is a common reason, and rarely when it was the same the last time.
const (
	renewFirst = 5 * time.Second
	renewMost  = 5 * time.Minute
)
