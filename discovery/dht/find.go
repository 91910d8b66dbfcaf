package dht

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/multiformats/go-multihash"
)

// key is where the records of a service are.
func key(network, service string) cid.Cid { return keyOf("p2p service", network, service) }

// peerKey is where a client says where it is.
func peerKey(network string, p peer.ID) cid.Cid { return keyOf("p2p peer", network, string(p)) }

// keyOf keeps keys of one kind apart from those of another.
func keyOf(kind, network, of string) cid.Cid {
	sum, err := multihash.Sum([]byte(kind+"\x00"+network+"\x00"+of), multihash.SHA2_256, -1)
	if err != nil {
		return cid.Undef // not with this hash
	}
	return cid.NewCidV1(cid.Raw, sum)
}

// Find yields the peers that are said to offer a service, as they are found: at most [MaxFound], each once, never this
// node. While the table is empty it waits. An error comes last. Addresses may be missing when the peer is connected.
// Nothing of it is proven: connect, and ask what the peer offers.
func (d *DHT) Find(ctx context.Context, service string) iter.Seq2[peer.AddrInfo, error] {
	return func(yield func(peer.AddrInfo, error) bool) {
		if err := d.find(ctx, service, func(info peer.AddrInfo) bool { return yield(info, nil) }); err != nil {
			yield(peer.AddrInfo{}, fmt.Errorf("dht: find %q: %w", service, err))
		}
	}
}

// maxHomeless is how many peers without an address one search looks up.
const maxHomeless = 8

// find is Find; yield returns false when no more is wanted. It may take its time: the place among the lookups is given
// back when the search has ended.
func (d *DHT) find(parent context.Context, service string, yield func(peer.AddrInfo) bool) error {
	if err := d.awaitReady(parent); err != nil {
		return err
	}
	ctx, done, err := d.lookup(parent)
	if err != nil {
		return err
	}
	found := make(chan peer.AddrInfo, MaxFound) // the search never waits for the reader
	var search sync.WaitGroup
	search.Go(func() {
		defer close(found)
		defer done()
		d.search(ctx, service, found)
	})
	defer search.Wait()
	defer done() // ends the search that is not over
	for info := range found {
		if err := parent.Err(); err != nil {
			return err
		}
		if !yield(info) {
			return nil
		}
	}
	return parent.Err()
}

// search sends who is found, MaxFound at most.
func (d *DHT) search(ctx context.Context, service string, found chan<- peer.AddrInfo) {
	ctx, cancel := context.WithCancel(ctx)
	said := d.kad.FindProvidersAsync(ctx, key(d.cfg.Network, service), 0)
	defer func() {
		cancel()
		for range said {
			continue
		}
	}()
	sent := 0
	seen := make(map[peer.ID]bool) // false: without an address so far
	for info := range said {
		if seen[info.ID] || info.ID == d.host.ID() || !d.allowed(info.ID) {
			continue
		}
		seen[info.ID] = len(info.Addrs) > 0 || len(d.host.Network().ConnsToPeer(info.ID)) > 0
		if !seen[info.ID] {
			continue
		}
		found <- info
		if sent++; sent == MaxFound {
			return
		}
	}
	d.house(ctx, seen, MaxFound-sent, found)
}

// house looks up those peers who were found without an address, and sends those whose address it finds, most at most.
func (d *DHT) house(ctx context.Context, seen map[peer.ID]bool, most int, found chan<- peer.AddrInfo) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	tried := 0
	for p, housed := range seen {
		if housed {
			continue
		}
		if tried++; tried > min(maxHomeless, most) {
			return
		}
		if info, err := d.kad.FindPeer(ctx, p); err == nil && len(info.Addrs) > 0 {
			found <- info
		}
	}
}

// FindPeer looks up where a peer is. The addresses are somebody's claim, until the peer has answered there. While the
// table is empty it waits.
func (d *DHT) FindPeer(ctx context.Context, p peer.ID) (peer.AddrInfo, error) {
	info, err := d.findPeer(ctx, p)
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("dht: find peer %s: %w", p, err)
	}
	return info, nil
}

func (d *DHT) findPeer(ctx context.Context, p peer.ID) (peer.AddrInfo, error) {
	if !d.allowed(p) {
		return peer.AddrInfo{}, errNotMember
	}
	if err := d.awaitReady(ctx); err != nil {
		return peer.AddrInfo{}, err
	}
	ctx, done, err := d.lookup(ctx)
	if err != nil {
		return peer.AddrInfo{}, err
	}
	var searches sync.WaitGroup
	defer searches.Wait()
	defer done() // ends the search that is not over
	type answer struct {
		info peer.AddrInfo
		err  error
	}
	answers := make(chan answer, 2)
	for _, ask := range []func(context.Context, peer.ID) (peer.AddrInfo, error){d.kad.FindPeer, d.announcedPeer} {
		searches.Go(func() {
			info, err := ask(ctx, p)
			if err == nil && len(info.Addrs) == 0 {
				err = routing.ErrNotFound
			}
			answers <- answer{info, err}
		})
	}
	first := <-answers
	if first.err == nil {
		return first.info, nil
	}
	second := <-answers
	return second.info, second.err
}

// announcedPeer looks for where a client has said that it is.
func (d *DHT) announcedPeer(ctx context.Context, p peer.ID) (peer.AddrInfo, error) {
	ctx, cancel := context.WithCancel(ctx)
	found := d.kad.FindProvidersAsync(ctx, peerKey(d.cfg.Network, p), 0)
	defer func() {
		cancel()
		for range found {
			continue
		}
	}()
	for info := range found {
		if info.ID == p && len(info.Addrs) > 0 {
			return info, nil
		}
	}
	return peer.AddrInfo{}, routing.ErrNotFound
}
