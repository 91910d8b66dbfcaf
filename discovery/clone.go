package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
)

// cloneAgain is how long one place is not looked at, and not complained of, again.
const (
	cloneAgain    = 10 * time.Second
	cloneTold     = 10 * time.Minute
	maxClones     = 256
	identifyLimit = 3 * time.Second
)

// Cloned tells the keeper that another host proved this node's own identity at an address. It does not block; it is
// what host.Config's Clone calls.
func (k *Keeper) Cloned(at ma.Multiaddr) {
	key := "!"
	if ip, ok := addr.IP(at); ok {
		key += ip.String() // the port of a connection that came in says nothing
	}
	if !k.firstIn(key, cloneTold) {
		return
	}
	err := fmt.Errorf("another host, at %s, has this node's identity %s: its home folder was copied. "+
		"Remove the identity from the copy (or start it with another home), so that it makes its own", places([]ma.Multiaddr{at}), k.h.ID())
	k.input(func(c *core) {
		c.tell(Event{Kind: PeerClone, Peer: Peer{ID: c.self}, Addr: at, Err: err, Time: c.now})
	})
}

// suspect takes that somebody announces this node's ID at addresses. Some of them may be this node's, or were.
func (k *Keeper) suspect(addrs []ma.Multiaddr) {
	own := host.Addrs(k.h)
	for _, a := range addrs {
		if addr.Relayed(a) || slices.ContainsFunc(own, a.Equal) || !k.firstIn(a.String(), cloneAgain) {
			continue
		}
		select {
		case k.checks <- a:
		default: // enough to look at
		}
	}
}

// firstIn tells whether key was not given for a while.
func (k *Keeper) firstIn(key string, d time.Duration) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if until, ok := k.clones[key]; ok && now.Before(until) {
		return false
	}
	if len(k.clones) >= maxClones {
		clear(k.clones)
	}
	k.clones[key] = now.Add(d)
	return true
}

// lookForClones asks at suspect addresses who is there.
func (k *Keeper) lookForClones(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-k.checks:
			ictx, cancel := context.WithTimeout(ctx, identifyLimit)
			id, err := host.Identify(ictx, k.h, a)
			cancel()
			if id == k.h.ID() || errors.Is(err, host.ErrClone) {
				k.Cloned(a)
			}
		}
	}
}
