package nodeinfo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lynn9388/p2p/grpcstream"
)

const (
	// maxWatches is how many watches run at once for one caller, and maxAllWatches for all of them.
	maxWatches    = 4
	maxAllWatches = 256
	// watchPause lies between two responses of a watch: what changes within it is sent as one.
	watchPause = 100 * time.Millisecond
)

func (s *server) Watch(_ *WatchRequest, stream grpc.ServerStreamingServer[WatchResponse]) error {
	ctx := stream.Context()
	caller, _ := grpcstream.PeerFromContext(ctx) // whom no connection proves share a limit
	if !s.watches.Take(caller.ID) {
		return status.Error(codes.ResourceExhausted, "nodeinfo: too many watches run already")
	}
	defer s.watches.Give(caller.ID)
	changes := s.node.Changes(ctx)
	told := map[string]*Neighbor(nil)
	for {
		now := present(s.node.Neighbors())
		if res := change(told, now); told == nil || len(res.Neighbors)+len(res.Gone) > 0 {
			if err := stream.Send(res); err != nil {
				return err
			}
			told = now
		}
		select {
		case <-time.After(watchPause):
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
		select {
		case _, more := <-changes:
			if !more {
				return status.Error(codes.Unavailable, "nodeinfo: the node is closing")
			}
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// present are the neighbors by ID, within the protocol's limits.
func present(all []*Neighbor) map[string]*Neighbor {
	slices.SortFunc(all, func(a, b *Neighbor) int { return cmp.Compare(a.GetId(), b.GetId()) })
	out := make(map[string]*Neighbor)
	for _, n := range all {
		if len(out) == MaxNeighbors {
			break
		}
		services := slices.DeleteFunc(slices.Sorted(slices.Values(n.GetServices())), func(s string) bool { return !validName(s) })
		services = slices.Compact(services)
		out[n.GetId()] = &Neighbor{Id: n.GetId(), Name: cut(n.GetName()), Services: services[:min(len(services), MaxNeighborServices)]}
	}
	return out
}

// change is what makes now of told.
func change(told, now map[string]*Neighbor) *WatchResponse {
	res := &WatchResponse{}
	for _, id := range slices.Sorted(maps.Keys(now)) {
		if !proto.Equal(told[id], now[id]) {
			res.Neighbors = append(res.Neighbors, now[id])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(told)) {
		if now[id] == nil {
			res.Gone = append(res.Gone, id)
		}
	}
	return res
}

// Watch yields the neighbors of the node behind cc: first all of them, if there are none, too, then each time what has
// changed. It goes on until ctx ends, the loop is left or the call ends, which the last pair says by its error; there is
// no deadline but that of ctx. What comes faster than the loop takes it may come as one change. A response over the
// limits or with a malformed name ends the sequence with [ErrAnswer].
func Watch(ctx context.Context, cc grpc.ClientConnInterface) iter.Seq2[*WatchResponse, error] {
	return func(yield func(*WatchResponse, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := NewNodeInfoServiceClient(cc).Watch(ctx, &WatchRequest{}, options())
		for err == nil {
			var res *WatchResponse
			if res, err = stream.Recv(); err != nil {
				break
			}
			if bad := checkChange(res); bad != nil {
				err = fmt.Errorf("%w: %w", ErrAnswer, bad)
				break
			}
			if !yield(res, nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(nil, fmt.Errorf("nodeinfo: watch: %w", err))
		}
	}
}

func checkChange(res *WatchResponse) error {
	if n := max(len(res.GetNeighbors()), len(res.GetGone())); n > MaxNeighbors {
		return fmt.Errorf("%d neighbors, at most %d are allowed", n, MaxNeighbors)
	}
	ids := func(yield func(string) bool) {
		for _, n := range res.GetNeighbors() {
			if !yield(n.GetId()) {
				return
			}
		}
	}
	if err := errors.Join(checkIDs(ids), checkIDs(slices.Values(res.GetGone()))); err != nil {
		return err
	}
	for _, n := range res.GetNeighbors() {
		n.Name = cut(n.GetName())
		if count := len(n.GetServices()); count > MaxNeighborServices {
			return fmt.Errorf("a neighbor has %d services, at most %d are allowed", count, MaxNeighborServices)
		}
		for i, s := range n.GetServices() {
			switch {
			case !validName(s):
				return fmt.Errorf("malformed service name %+q", cut(s))
			case i > 0 && n.GetServices()[i-1] >= s:
				return fmt.Errorf("service %q is out of order or there twice", s)
			}
		}
	}
	return nil
}

// checkIDs tells what is wrong with peer IDs that must be sorted.
func checkIDs(ids iter.Seq[string]) error {
	last := ""
	for id := range ids {
		if _, err := peer.Decode(id); err != nil || id <= last {
			return fmt.Errorf("peer ID %+q is malformed, out of order or there twice", cut(id))
		}
		last = id
	}
	return nil
}
