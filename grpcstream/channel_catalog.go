package grpcstream

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/internal/safetext"
)

const (
	catalogReads   = 4                // catalogs read at once
	catalogTimeout = 10 * time.Second // for each of them
	catalogPause   = time.Second      // between two reads of one peer's
	catalogTries   = 5                // in a row, with growing pauses
)

// catalogs reads the services of peers that have too many to announce them. One goroutine at most reads for a peer,
// and only while that peer is known to have a catalog.
type catalogs struct {
	ctx  context.Context //nolint:containedctx // the life of the channel, which starts work when events say so
	wg   *sync.WaitGroup
	ch   *Channel
	slot chan struct{}

	mu    sync.Mutex
	again map[peer.ID]bool // being read; true: to be read once more
}

func newCatalogs(ctx context.Context, wg *sync.WaitGroup, ch *Channel) *catalogs {
	return &catalogs{ctx: ctx, wg: wg, ch: ch, slot: make(chan struct{}, catalogReads), again: map[peer.ID]bool{}}
}

// want has a peer's catalog read, again if need be. It does not block.
func (c *catalogs) want(id peer.ID) {
	if c.ch.cfg.Catalog == nil || id == c.ch.host.ID() || c.ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, running := c.again[id]; running {
		c.again[id] = true
		return
	}
	c.again[id] = false
	c.wg.Go(func() { c.run(id) })
}

// run reads a peer's catalog until it is up to date, out of reach or gone.
func (c *catalogs) run(id peer.ID) {
	tries := 0
	for {
		if c.read(id) {
			tries = 0
		} else {
			tries++
		}
		c.mu.Lock()
		if again := c.again[id]; c.ctx.Err() != nil || tries >= catalogTries || (tries == 0 && !again) || !c.wanted(id) {
			delete(c.again, id)
			c.mu.Unlock()
			return
		}
		c.again[id] = false
		c.mu.Unlock()
		select {
		case <-time.After(catalogPause << max(0, tries-1)):
		case <-c.ctx.Done():
		}
	}
}

// wanted tells whether the peer still has a catalog.
func (c *catalogs) wanted(id peer.ID) bool {
	e := c.ch.directory.lookup(id)
	return e != nil && e.many && e.tunnel
}

// read reads a peer's catalog once, over a tunnel of its own: the channel's would stay open, and make each peer with many
// services look like one in use.
func (c *catalogs) read(id peer.ID) bool {
	select {
	case c.slot <- struct{}{}:
		defer func() { <-c.slot }()
	case <-c.ctx.Done():
		return false
	}
	if !c.wanted(id) { // it has left meanwhile
		return false
	}
	names, err := c.ask(id)
	if err != nil {
		c.ch.log.Debug("grpcstream: a peer's service list cannot be read", "peer", id, "err", safetext.Clean(err.Error()))
		return false
	}
	c.ch.directory.setCatalog(id, names)
	return true
}

func (c *catalogs) ask(id peer.ID) (names []string, err error) {
	ctx, cancel := context.WithTimeout(c.ctx, catalogTimeout)
	defer cancel()
	cc, err := c.ch.NewClient(id.String())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cc.Close()) }()
	return c.ch.cfg.Catalog(ctx, cc)
}
