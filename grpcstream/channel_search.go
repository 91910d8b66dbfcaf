package grpcstream

import (
	"context"
	"iter"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Search returns the instances that a selector tells: those known at once, then those that [ChannelConfig.Find] brings, each of
// them once, as soon as it is connected and has said itself that it offers the service. An error of the search is
// yielded at its end, with a zero Instance. It ends when the search is over, but while no instance is known not before
// the discovery timeout, as a call would wait; and when ctx ends. Searches for one name at the same time are one. Selector.Service
// must be set; Nearest has no effect.
func (ch *Channel) Search(ctx context.Context, s Selector) iter.Seq2[Instance, error] {
	return func(yield func(Instance, error) bool) {
		sel := namedSelector(s)
		if sel.err != nil {
			yield(Instance{}, sel.err)
			return
		}
		if err := ch.search(ctx, sel, yield); err != nil {
			yield(Instance{}, err)
		}
	}
}

// search is [Channel.Search] of a good selector, and returns the error of the search, nil when the loop was left.
func (ch *Channel) search(ctx context.Context, sel *selector, yield func(Instance, error) bool) error {
	changed, stop := ch.directory.signal()
	defer stop()
	told := map[peer.ID]bool{}
	if !ch.tellNew(sel, told, yield) || ctx.Err() != nil {
		return nil
	}
	r := ch.finder.look(sel.service, true)
	var over <-chan struct{}
	if r != nil {
		over = r.done
	}
	patience := time.NewTimer(ch.cfg.DiscoveryTimeout)
	defer patience.Stop()
	for late := false; over != nil || len(told) == 0 && !late; {
		select {
		case <-changed:
		case <-over:
			over = nil
		case <-patience.C:
			late = true
		case <-ctx.Done():
			return nil
		case <-ch.directory.ended:
			return nil
		}
		if !ch.tellNew(sel, told, yield) {
			return nil
		}
	}
	if r == nil {
		return nil
	}
	return r.err
}

// tellNew yields the instances that were not yielded before.
func (ch *Channel) tellNew(sel *selector, told map[peer.ID]bool, yield func(Instance, error) bool) bool {
	for _, i := range ch.hub.snapshot(sel.service, sel.tags) {
		if told[i.Peer] {
			continue
		}
		told[i.Peer] = true
		if !yield(i, nil) {
			return false
		}
	}
	return true
}
