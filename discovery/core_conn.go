package discovery

import (
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// closeReason says why a connection ended.
type closeReason int

const (
	closedUnknown   closeReason = iota
	closedFull                  // to make room: here or there
	closedNotMember             // it is of another network
	closedNotAllow              // it is not, or no longer, on the list
	closedByUser                // Disconnect
	closedDead                  // it answered no ping, or was never identified
	closedIdle                  // somebody else in this process had no more use for it
)

// code is what the other end is told.
func (r closeReason) code() network.ConnErrorCode {
	switch r {
	case closedFull:
		return network.ConnGarbageCollected
	case closedNotMember:
		return network.ConnProtocolNegotiationFailed
	case closedNotAllow, closedByUser:
		return network.ConnGated
	default:
		return network.ConnNoError
	}
}

// reasonOf reads what the other end said.
func reasonOf(code network.ConnErrorCode) closeReason {
	switch code {
	case network.ConnGarbageCollected, network.ConnResourceLimitExceeded, network.ConnRateLimited:
		return closedFull
	case network.ConnProtocolNegotiationFailed:
		return closedNotMember
	case network.ConnGated:
		return closedNotAllow
	default:
		return closedUnknown
	}
}

var (
	errDisconnected = errors.New("disconnected by the user")
	errMadeRoom     = errors.New("let go: it was one more than the node keeps")
	errLetGo        = errors.New("it let this node go: it has neighbors enough")
	errRefused      = errors.New("it refuses this node")
	errNotAllowed   = errors.New("it is not allowed")
	errVanished     = errors.New("the connection was lost")
)

// connUp takes that there are n connections to a peer now, the newest of them outbound or not.
func (c *core) connUp(p peer.ID, n int, outbound bool) {
	if n == 0 {
		return
	}
	_, banned := c.banned[p]
	if _, dialing := c.inflight[p]; banned && dialing && outbound { // the user parted from it meanwhile
		c.do(action{kind: actClose, peer: p, code: closedByUser.code()})
		return
	}
	delete(c.banned, p)
	e := c.peers[p]
	if e == nil {
		e = c.insert(p, "inbound") // the host bounds how many are connected
	}
	first := e.conns == 0
	e.conns, e.newest = n, c.now
	if first {
		c.connected++
		e.up, e.outbound = c.now, outbound
		e.identified, e.member, e.unwanted, e.why, e.left = false, false, false, closedUnknown, nil
		e.doubted = time.Time{}
		e.grace = c.now.Add(grace)
	}
	c.touch(e)
}

// opened takes that a connection of those was opened then. That is news for a peer which the user parted from: it was asked
// for, though the connections of before have not been noticed to have ended.
func (c *core) opened(p peer.ID, at time.Time) {
	if _, banned := c.banned[p]; banned { // connUp did not take it
		return
	}
	if e := c.peers[p]; e != nil && e.why == closedByUser && at.After(e.closed) {
		e.unwanted, e.why, e.left = false, closedUnknown, nil
	}
}

// connDown takes that n connections are left; remote is what the other end said when it closed the last.
func (c *core) connDown(p peer.ID, n int, remote closeReason) {
	e := c.peers[p]
	if e == nil || e.conns == 0 {
		return
	}
	e.conns = n
	if n > 0 {
		return
	}
	c.connected--
	e.links = nil
	c.setPath(e, Path{})
	wasNeighbor := e.neighbor
	if c.now.Sub(e.up) >= steady {
		e.fails, e.full = 0, 0
	}
	c.ended(e, remote, wasNeighbor)
	c.demote(e)
	c.protect(e, false)
	if e.left != nil {
		e.lastErr = e.left.Error()
	}
	e.identified, e.member, e.record = false, false, nil
	c.touch(e)
	c.do(action{kind: actAddrs, peer: p})
	if c.homeless(e) && !e.sticky && !e.busy {
		c.drop(e) // it came by itself and never said where it listens
	}
	c.prune()
}

// ended decides when a peer whose last connection ended is dialed again.
func (c *core) ended(e *entry, remote closeReason, wasNeighbor bool) {
	here := e.why
	why := here
	if here == closedUnknown {
		why = remote
	}
	switch why {
	case closedUnknown, closedDead, closedIdle:
		e.left = errVanished
		if wasNeighbor || !e.lost.IsZero() {
			c.lose(e)
			return
		}
		if why == closedIdle {
			e.next = c.now.Add(c.jitter(time.Second))
			return
		}
		e.fails++
		e.next = c.now.Add(c.backoff(e))
	case closedFull:
		if here == closedUnknown {
			e.left = errLetGo
		}
		if here == closedFull || e.outbound || c.now.Sub(e.up) >= steady { // else it came by itself, to ask something
			e.full++
		}
		e.lost, e.asked = time.Time{}, false
		e.next = c.now.Add(c.jitter(capped(fullBase, max(0, e.full-1), fullMax)))
	case closedNotMember, closedNotAllow, closedByUser:
		c.parted(e, here, why)
	}
}

// parted is ended for peers that do not want each other.
func (c *core) parted(e *entry, here, why closeReason) {
	if here == closedUnknown {
		e.left = errRefused
		if why == closedNotMember {
			e.left = errNotMember
		}
	}
	e.fails++
	e.lost, e.asked = time.Time{}, false
	e.next = c.now.Add(c.jitter(capped(refusedBase, e.fails-1, refusedMax)))
	if here == closedNotMember && e.wasMember {
		c.lose(e) // it is shutting down, and may be started again
		e.next = c.now.Add(c.jitter(time.Second))
	}
}

// lose marks a peer as one to be redialed, for as long as there are not too many of them.
func (c *core) lose(e *entry) {
	if e.lost.IsZero() {
		e.lost = c.now
	}
	switch {
	case e.fails > 0:
		e.next = c.now.Add(c.backoff(e))
	case c.keeps(e.id):
		e.next = c.now.Add(c.jitter(ownWait))
	default:
		e.next = c.now.Add(c.jitter(redialFirst))
	}
	var oldest *entry
	n := 0
	for _, o := range c.peers {
		if o.lost.IsZero() || o.conns > 0 {
			continue
		}
		n++
		if oldest == nil || o.lost.Before(oldest.lost) {
			oldest = o
		}
	}
	if n > maxLost {
		oldest.lost = time.Time{}
	}
}

// identity is what identify says of a connected peer.
type identity struct {
	member bool
	agent  string
	addrs  []ma.Multiaddr // accepted for the connection they came over
	record []byte
	seq    uint64
}

// identified takes what identify said; it says it again when something changes.
func (c *core) identified(p peer.ID, id identity) {
	e := c.peers[p]
	if e == nil || e.conns == 0 {
		return
	}
	e.identified = true
	if id.agent != "" {
		e.agent = id.agent
	}
	switch {
	case c.keeps(p) && (!id.member || !c.allowed(p)):
		c.bear(e)
	case !id.member && e.member:
		c.reject(e, closedNotMember, errStopped)
	case !id.member:
		c.doubt(e)
	case !c.allowed(p):
		c.reject(e, closedNotAllow, errNotAllowed)
	default:
		c.admit(e, id)
	}
}

// admit takes what identify says of a member.
func (c *core) admit(e *entry, id identity) {
	first := !e.member
	e.member, e.wasMember, e.doubted = true, true, time.Time{}
	if e.unwanted { // until it said this
		e.unwanted, e.why, e.left = false, closedUnknown, nil
	}
	e.lost, e.failed, e.lastErr, e.told, e.asked = time.Time{}, time.Time{}, "", false, false
	if len(id.addrs) > 0 {
		saidBefore := id.record != nil && id.seq <= e.seq
		c.replace(e, id.addrs, saidBefore)
	}
	if id.record != nil {
		e.record, e.seq = id.record, id.seq
	}
	c.do(action{kind: actAddrs, peer: e.id})
	if first {
		e.ping = c.now.Add(c.jitter(pingFirst))
		c.emit(PeerConnected, e, nil)
	}
	if !e.neighbor && (c.neighbors < c.cfg.High || e.sticky) {
		c.promote(e)
	}
	c.touch(e)
}

// identifyFailed takes that a peer did not say who it is on one of its connections, perhaps because that one ended.
func (c *core) identifyFailed(p peer.ID, err error) {
	if e := c.peers[p]; e != nil && e.conns > 0 && !e.identified {
		e.lastErr = "it did not identify itself: " + err.Error()
	}
}

// bear takes that a peer on which this node depends is none of its network, or is not allowed to be a neighbor: it stays
// connected, for what it does, and is nothing else.
func (c *core) bear(e *entry) {
	if e.neighbor {
		e.left = errStopped
		if !c.allowed(e.id) {
			e.left = errNotAllowed
		}
	}
	e.member, e.doubted = false, time.Time{}
	c.demote(e)
	c.touch(e)
}

// doubt takes that a peer does not say that it is of this network. It has a moment to say so: libp2p answers with what
// the host spoke a little before, and sends what is new afterwards, so that who calls right after its start may look like
// a stranger at first.
func (c *core) doubt(e *entry) {
	if e.doubted.IsZero() && !e.unwanted {
		e.doubted = c.now
	}
	e.lastErr = errNotMember.Error()
}

// reject ends a peer's being a neighbor and its connections, as soon as nothing uses them.
func (c *core) reject(e *entry, why closeReason, left error) {
	e.record = nil
	e.member, e.doubted = false, time.Time{}
	e.unwanted, e.why, e.left = true, why, left
	e.lastErr = left.Error()
	c.demote(e)
	c.do(action{kind: actAddrs, peer: e.id})
	if !c.inUse(e.id) {
		c.close(e, why, left)
	}
	c.touch(e)
}

func (c *core) close(e *entry, why closeReason, left error) {
	e.why, e.left, e.closed = why, left, c.now
	c.do(action{kind: actClose, peer: e.id, code: why.code()})
}

func (c *core) promote(e *entry) {
	e.neighbor = true
	c.neighbors++
	c.protect(e, true)
	c.emit(PeerNeighbor, e, nil)
}

func (c *core) demote(e *entry) {
	if !e.neighbor {
		return
	}
	e.neighbor = false
	c.neighbors--
	c.protect(e, false)
	c.emit(PeerLeft, e, e.left)
}

// protect has the connection manager leave a peer's connections alone, or no longer.
func (c *core) protect(e *entry, on bool) {
	if e.protected != on {
		if e.protected = on; on {
			c.protected++
		} else {
			c.protected--
		}
		c.do(action{kind: actProtect, peer: e.id, on: on})
	}
}

// earlier returns the earlier of two moments; zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
