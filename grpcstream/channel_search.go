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
		changed, stop := ch.directory.signal()
		defer stop()
		told := map[peer.ID]bool{}
		if !ch.tellNew(sel, told, yield) || ctx.Err() != nil {
			return
		}
		s := ch.finder.look(sel.service, true)
		var over <-chan struct{}
		if s != nil {
			over = s.done
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
				return
			case <-ch.directory.ended:
				return
			}
			if !ch.tellNew(sel, told, yield) {
				return
			}
		}
		if s != nil && s.err != nil {
			yield(Instance{}, s.err)
		}
	}
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
