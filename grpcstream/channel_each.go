package grpcstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/lynn9388/p2p/internal/safetext"
)

// eachAtOnce bounds the calls of one [Channel.Each] that run at once.
const eachAtOnce = 64

// Each makes one call on every instance that the selector tells and that is known, 64 at once, and returns the results
// in the order in which they come: each with its instance, and with the error of call. Selector.Service must be set;
// Nearest has no effect. cc calls that instance, whatever method is called.
//
// While none is known it waits for one as a call does, and yields a zero Instance with the reason NO_INSTANCE if none
// comes, or Canceled if ctx is canceled before that. An instance that says that it is not serving is yielded with the
// reason NOT_SERVING and not called. When ctx ends, the instances that have not answered are yielded with its error. When
// the loop is left before, ctx's children that the calls got end. In either case the loop ends after the last call has
// returned: call must heed its ctx.
func (ch *Channel) Each(ctx context.Context, s Selector, call func(ctx context.Context, cc grpc.ClientConnInterface) error) iter.Seq2[Instance, error] {
	return func(yield func(Instance, error) bool) {
		sel := namedSelector(s)
		if sel.err != nil {
			yield(Instance{}, sel.err)
			return
		}
		all, err := ch.await(ctx, sel)
		if err != nil {
			yield(Instance{}, err)
			return
		}
		ch.each(ctx, all, call, yield)
	}
}

type eachResult struct {
	i   int
	err error
}

// each is [Channel.Each] for instances that are known.
func (ch *Channel) each(ctx context.Context, all []Instance, call func(context.Context, grpc.ClientConnInterface) error, yield func(Instance, error) bool) {
	var wg sync.WaitGroup
	defer wg.Wait()
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan eachResult, len(all))
	next := make(chan int, len(all))
	for i := range all {
		next <- i
	}
	close(next)
	for range min(eachAtOnce, len(all)) {
		wg.Go(func() {
			for i := range next {
				if inner.Err() != nil {
					return
				}
				results <- eachResult{i, ch.callOne(inner, all[i], call)}
			}
		})
	}
	told := make([]bool, len(all))
	for range all {
		select {
		case r := <-results:
			told[r.i] = true
			if !yield(all[r.i], r.err) {
				return
			}
			continue
		case <-ctx.Done():
		}
		for n := len(results); n > 0; n-- { // those in time
			r := <-results
			told[r.i] = true
			if !yield(all[r.i], r.err) {
				return
			}
		}
		for i, done := range told {
			if !done && !yield(all[i], context.Cause(ctx)) {
				return
			}
		}
		return
	}
}

func (ch *Channel) callOne(ctx context.Context, i Instance, call func(context.Context, grpc.ClientConnInterface) error) error {
	if i.Health == HealthNotServing {
		return &Error{
			Code:    codes.Unavailable,
			Reason:  ReasonNotServing,
			Message: fmt.Sprintf("peer %s says that it is not serving", i.Peer),
		}
	}
	return call(ctx, handle{ch: ch, sel: &selector{peer: i.Peer}})
}

// await returns the instances that a selector tells, as soon as there are any.
func (ch *Channel) await(parent context.Context, sel *selector) ([]Instance, error) {
	known := func() []Instance { return ch.hub.snapshot(sel.service, sel.tags) }
	if all := known(); len(all) > 0 {
		return all, nil
	}
	ctx, cancel := context.WithTimeout(parent, ch.cfg.DiscoveryTimeout)
	defer cancel()
	changed, stop := ch.directory.signal()
	defer stop()
	ch.hub.want(sel.service)
	for {
		if all := known(); len(all) > 0 {
			return all, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if err := parent.Err(); errors.Is(err, context.Canceled) {
				return nil, contextStatus(err)
			}
			return nil, &Error{
				Code:    codes.Unavailable,
				Reason:  ReasonNoInstance,
				Message: fmt.Sprintf("no instance of service %q is known", safetext.Clean(sel.service)),
				Remedy:  noInstanceRemedy,
			}
		case <-ch.directory.ended:
			return nil, grpc.ErrClientConnClosing //nolint:staticcheck // what calls on a closed channel fail with
		}
	}
}
