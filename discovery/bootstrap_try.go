package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
)

const (
	joinBase  = 100 * time.Millisecond
	joinSoon  = 2 * time.Second  // the ceiling for
	joinFirst = time.Minute      // this long
	joinNear  = 10 * time.Second // the pace afterwards, on this machine or link
	joinFar   = 30 * time.Second // and elsewhere
	joinIdle  = 30 * time.Second // how often a joined peer that is connected is looked at
	joinTold  = 5 * time.Second  // after this long in vain a person is told
	// resolveLimit bounds how long a name is looked up, and maxResolved how many addresses it may stand for.
	resolveLimit = 5 * time.Second
	maxResolved  = 32
	// askWho is after how many tries in vain somebody is asked who answers in place of the peer that was named.
	askWho = 3
)

// keepTrying tries a joined address until ctx ends.
func (b *Bootstrap) keepTrying(ctx context.Context, h corehost.Host, j *joint, found func(peer.AddrInfo)) {
	j.since = time.Now()
	was := false
	for ctx.Err() == nil {
		ok, near := b.try(ctx, h, j, found)
		if was && !ok {
			j.tries, j.since = 0, time.Now() // lost: begin anew
		}
		was = ok
		wait := joinIdle
		if !ok {
			wait = j.pace(near)
			j.tries++
		}
		b.patience(j, ok)
		if !j.sleep(ctx, wait, ok) {
			return
		}
	}
}

// patience says once that nobody answers, when that has lasted a while.
func (b *Bootstrap) patience(j *joint, ok bool) {
	if !ok && time.Since(j.since) > joinTold && j.once("nobody") {
		b.log.Info("nobody answers yet where this node joins; it keeps trying", "addr", j.text)
	}
}

// pace is how long to wait after a try in vain.
func (j *joint) pace(near bool) time.Duration {
	d := capped(joinBase, j.tries, joinSoon)
	if time.Since(j.since) > joinFirst {
		d = joinFar
		if near {
			d = joinNear
		}
	}
	return d*3/4 + rand.N(d/2)
}

// sleep waits for d, or until it is time to begin anew; if all is well, also until somebody connects or leaves, though
// not before a short while has passed, since that comes in bursts.
func (j *joint) sleep(ctx context.Context, d time.Duration, well bool) bool {
	wake := j.wake
	if !well {
		wake = nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	case <-j.kick:
		j.tries, j.since = 0, time.Now()
	case <-wake:
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(joinBase / 2):
		return true
	}
}

// try looks who is at a joined address and hands them to the keeper. ok tells that nothing more is to be done for now;
// near that the address is on this machine or link.
func (b *Bootstrap) try(ctx context.Context, h corehost.Host, j *joint, found func(peer.AddrInfo)) (ok, near bool) {
	if j.info.ID == h.ID() {
		b.ownID(j, found)
		return true, false
	}
	if j.info.ID != "" {
		if well, _ := b.settled(h, j.info.ID); well {
			return true, false
		}
	}
	infos, err := b.resolve(ctx, j.info)
	if err != nil {
		b.log.Debug("cannot resolve a joined address", "addr", j.text, "err", clean(err))
		return false, false
	}
	ok, near = len(infos) > 0, true
	several := len(infos) > 1
	for _, info := range infos {
		for _, a := range info.Addrs {
			near = near && addr.ScopeOf(a) < Public
		}
		if !b.tryOne(ctx, h, j, info, several, found) {
			ok = false
		}
	}
	return ok, near
}

// ownID deals with an address that names this very node: it is left out, unless a clone is there.
func (b *Bootstrap) ownID(j *joint, found func(peer.AddrInfo)) {
	if j.once("self") {
		b.log.Info("joining through this node itself is ignored", "addr", j.text)
	}
	found(j.info)
}

// settled tells whether p needs no dial: because all is well, or because one is under way, which may yet fail.
func (b *Bootstrap) settled(h corehost.Host, p peer.ID) (well, dialing bool) {
	if c := h.Network().Connectedness(p); c == network.Connected || c == network.Limited {
		return true, false
	}
	if b.cfg.Keeper == nil {
		return false, false
	}
	return b.cfg.Keeper.settled(p)
}

// parted tells whether the user parted from p, by Disconnect or Forget.
func (b *Bootstrap) parted(p peer.ID) bool { return b.cfg.Keeper != nil && b.cfg.Keeper.Parted(p) }

// tryOne tries one place, with a peer ID or without.
func (b *Bootstrap) tryOne(ctx context.Context, h corehost.Host, j *joint, info peer.AddrInfo, several bool, found func(peer.AddrInfo)) bool {
	if info.ID != "" {
		return b.tryNamed(ctx, h, j, info, found)
	}
	key := j.key(info.Addrs[0], several)
	if last := j.seen[key]; last != "" && !b.parted(last) { // else somebody else may be there now
		if well, dialing := b.settled(h, last); well || dialing {
			return well
		}
	}
	id, at, err := b.identify(ctx, h, j.tries, info.Addrs)
	switch {
	case errors.Is(err, host.ErrClone):
		found(peer.AddrInfo{ID: h.ID(), Addrs: info.Addrs}) // the keeper says so
		return true
	case errors.Is(err, host.ErrSelf):
		if j.once("self") {
			b.log.Info("joining through this node itself is ignored", "addr", j.text)
		}
		return true
	case err != nil:
		b.log.Debug("nobody answers at a joined address", "addr", j.text, "err", clean(err))
		return false
	case b.parted(id):
		return true
	case !b.trust(j, key, id, at):
		return false
	}
	found(peer.AddrInfo{ID: id, Addrs: info.Addrs})
	return false
}

// tryNamed tries one place of a peer that was named.
func (b *Bootstrap) tryNamed(ctx context.Context, h corehost.Host, j *joint, info peer.AddrInfo, found func(peer.AddrInfo)) bool {
	if info.ID == h.ID() {
		return true
	}
	if well, dialing := b.settled(h, info.ID); well || dialing {
		return well
	}
	if j.tries%4 == askWho {
		b.whoElse(ctx, h, j, info)
	}
	found(info)
	return false
}

// trust decides about who answers at an address without a peer ID.
func (b *Bootstrap) trust(j *joint, key string, id peer.ID, at ma.Multiaddr) bool {
	loopback := addr.ScopeOf(at) == Loopback
	old := j.seen[key]
	if b.cfg.Book != nil && !loopback {
		if pinned, ok := b.cfg.Book.Pin(key); ok && pinned != id {
			if j.once("refused " + string(id)) {
				b.warn(j, PeerIdentityRefused, id, pinned, at, fmt.Errorf(
					"%s answers at %s, where %s was expected: refused. If that is right, accept it with: p2p peers forget %s", id, j.text, pinned, pinned))
			}
			return false
		}
		if err := b.cfg.Book.SetPin(key, id); err != nil {
			b.log.Warn("cannot remember who answers at a joined address", "addr", j.text, "err", err)
		}
	}
	j.seen[key] = id
	if old != "" && old != id {
		b.warn(j, PeerIdentityChanged, id, old, at, fmt.Errorf("another peer answers at %s now: %s, before it was %s", j.text, id, old))
		if b.cfg.Keeper != nil {
			b.cfg.Keeper.input(func(c *core) {
				c.dropAddrs(old, func(a ma.Multiaddr) bool { return placeOf(a) == placeOf(at) })
			})
		}
	}
	return true
}

// whoElse says who answers at an address in place of the peer that was named.
func (b *Bootstrap) whoElse(ctx context.Context, h corehost.Host, j *joint, info peer.AddrInfo) {
	direct := slices.DeleteFunc(slices.Clone(info.Addrs), addr.Relayed) // a relay answers for nobody
	id, at, err := b.identify(ctx, h, j.tries, direct)
	switch {
	case errors.Is(err, host.ErrSelf), errors.Is(err, host.ErrClone):
		id = h.ID()
	case err != nil, id == info.ID:
		return
	}
	if !j.once("wrong " + string(id)) {
		return
	}
	b.warn(j, PeerIdentityRefused, id, info.ID, at, fmt.Errorf(
		"wrong peer at %s: want %s, got %s: it is not trusted; correct the address if it is the right one", places(info.Addrs), info.ID, id))
}

// identify asks at the addresses of one place who is there: at the first, and now and then at all of them. Where TCP is
// refused, QUIC would only wait.
func (b *Bootstrap) identify(ctx context.Context, h corehost.Host, tries int, addrs []ma.Multiaddr) (peer.ID, ma.Multiaddr, error) {
	err := errors.New("no address")
	if tries%4 != 3 {
		addrs = addrs[:min(len(addrs), 1)]
	}
	for _, a := range addrs {
		limit := identifyLimit
		if addr.ScopeOf(a) == Loopback {
			limit = 10 * time.Second // only a machine with too much to do is silent to itself
		}
		ictx, cancel := context.WithTimeout(ctx, limit)
		var id peer.ID
		id, err = b.cfg.identify(ictx, h, a)
		cancel()
		if err == nil || errors.Is(err, host.ErrSelf) || errors.Is(err, host.ErrClone) {
			return id, a, err
		}
	}
	return "", nil, err
}

// resolve turns a joined address into places: each has one peer ID, or one IP address and port without one.
func (b *Bootstrap) resolve(ctx context.Context, info peer.AddrInfo) ([]peer.AddrInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	var out []peer.AddrInfo
	named := make(map[peer.ID][]ma.Multiaddr)
	var bare []ma.Multiaddr
	var errs []error
	for _, a := range info.Addrs {
		resolved, err := b.lookup(ctx, a, 4)
		if err != nil {
			errs = append(errs, err)
		}
		for _, r := range resolved[:min(len(resolved), maxResolved)] {
			switch id, at := b.named(info.ID, r); {
			case at == nil:
			case id != "":
				named[id] = append(named[id], at)
			default:
				bare = append(bare, at)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(named)) {
		out = append(out, peer.AddrInfo{ID: id, Addrs: named[id]})
	}
	byPlace := onePerPlace(bare)
	for _, place := range slices.Sorted(maps.Keys(byPlace)) {
		out = append(out, peer.AddrInfo{Addrs: byPlace[place]})
	}
	if len(out) == 0 {
		return nil, errors.Join(append(errs, errors.New("it stands for no address that can be dialed"))...)
	}
	return out, nil
}

// named returns who is to be met at an address, which is empty when that is not known, and the address without it; nil
// when the address cannot be dialed, or is of another than want.
func (b *Bootstrap) named(want peer.ID, a ma.Multiaddr) (peer.ID, ma.Multiaddr) {
	at, id := peer.SplitAddr(a)
	if at == nil || want != "" && id != "" && id != want {
		return "", nil
	}
	id = cmp.Or(id, want)
	if id == "" && addr.Relayed(at) { // it says through whom and not to whom
		return "", nil
	}
	if len(accepted(id, []ma.Multiaddr{at}, b.Origin())) == 0 {
		return "", nil
	}
	return id, at
}

// lookup resolves a until no name is left, at most depth times: a dnsaddr may point to another.
func (b *Bootstrap) lookup(ctx context.Context, a ma.Multiaddr, depth int) ([]ma.Multiaddr, error) {
	if !isName(a) {
		return []ma.Multiaddr{a}, nil
	}
	if depth == 0 {
		return nil, errors.New("names that point to names without end")
	}
	next, err := b.cfg.Resolver.Resolve(ctx, a)
	var out []ma.Multiaddr
	for _, n := range next[:min(len(next), maxResolved)] {
		more, lerr := b.lookup(ctx, n, depth-1)
		out = append(out, more...)
		err = errors.Join(err, lerr)
	}
	return out, err
}

func isName(a ma.Multiaddr) bool {
	if len(a) == 0 {
		return false
	}
	switch a[0].Protocol().Code {
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6, ma.P_DNSADDR:
		return true
	}
	return false
}
