package p2p

import (
	"context"
	"iter"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/grpcstream"
)

// An Instance is a node that offers a service, as this node sees it at one moment.
type Instance struct {
	ID        peer.ID       // proven by the connection
	Tags      []string      // that the node gave itself, "key=value", sorted: see WithTags
	Self      bool          // it is this node
	Connected bool          // there is a tunnel to it
	Health    string        // "serving" or "not serving" as it says; "" when it is not asked: not connected, or not called lately
	Path      string        // "direct", "relay", or "memory" for oneself
	RTT       time.Duration // round trip time last measured, or 0
	InFlight  int           // this node's calls to it that are under way
	Aside     time.Time     // until then it is called only if others cannot: calls to it failed; zero: it gets its share
}

// A CallerOption narrows the choice among the instances of a service.
type CallerOption interface {
	applyCaller(s *grpcstream.Selector)
}

type callerOptionFunc func(s *grpcstream.Selector)

func (f callerOptionFunc) applyCaller(s *grpcstream.Selector) { f(s) }

// WithTag chooses among the instances that have the tag: see [WithTags]. Of several all must match.
func WithTag(key, value string) CallerOption {
	return callerOptionFunc(func(s *grpcstream.Selector) { s.Tags = append(s.Tags, key+"="+value) })
}

// Nearest prefers the instance with the shortest round trip, instead of all in turn. When that one has too much to do
// the next nearest helps out.
func Nearest() CallerOption {
	return callerOptionFunc(func(s *grpcstream.Selector) { s.Nearest = true })
}

// Repeatable says that a call may be made more than once, because to do so does no harm. With it a call that an instance
// may have got, and that failed with Unavailable, is made again on another instance: at most three times in all, within
// its deadline; a unary call, or a stream of answers before the first of them. Without it such a call fails.
//
//	client.Get(ctx, req, p2p.Repeatable())
func Repeatable() grpc.CallOption { return grpcstream.Repeatable() }

// Resumable makes a stream go on when the connection that carries it is lost, or gives way to a better path: each message
// arrives once and in order, and the caller and the handler see one stream. The node that is called needs nothing for it.
// [grpcstream.Resumable] says what is promised and what is not.
//
//	stream, err := client.Watch(ctx, req, p2p.Resumable())
func Resumable() grpc.CallOption { return grpcstream.Resumable() }

// Instances returns the instances of a service: those known at once, then those that a search brings, each once and as
// soon as it has said itself that it offers the service. The sequence ends when the search is over, while nobody is known
// not before the discovery timeout, and when ctx ends: with a ctx that has ended it is what is known now. This node is
// one of them when it offers the service itself. An error comes with a zero Instance, at the end. The service must be named; a bad
// name or tag is an error with the code InvalidArgument. [Nearest] has no effect.
func (n *Node) Instances(ctx context.Context, service string, opts ...CallerOption) iter.Seq2[Instance, error] {
	return func(yield func(Instance, error) bool) {
		r, err := n.live()
		if err != nil {
			yield(Instance{}, err)
			return
		}
		forward(r.channel.Search(ctx, selector(service, opts)), yield)
	}
}

// Each makes one call on every instance of a service that is known, 64 at once, and returns the results as they come,
// each with its instance. call gets a connection to that one instance, for generated clients. It runs for several
// instances at once: what it writes to that others write to as well takes a lock.
//
//	for at, err := range node.Each(ctx, "stats.v1.Stats", func(ctx context.Context, cc grpc.ClientConnInterface) error {
//		reply, err := pb.NewStatsClient(cc).Get(ctx, &pb.GetRequest{})
//		…
//	}) { … }
//
// While none is known it waits for one as a call does; if none comes it yields a zero Instance with an error of the reason
// NO_INSTANCE, or Canceled if ctx was canceled before. When ctx ends, the instances that have not answered come with its
// error; when the loop is left, the calls under way are canceled. The loop ends after the last call has returned, and
// call has to return when its ctx ends. The service must be named, and [Nearest] has no effect. An instance that says that
// it is not serving is not called, and comes with an error of the reason NOT_SERVING.
func (n *Node) Each(ctx context.Context, service string, call func(ctx context.Context, cc grpc.ClientConnInterface) error, opts ...CallerOption) iter.Seq2[Instance, error] {
	return func(yield func(Instance, error) bool) {
		r, err := n.live()
		if err != nil {
			yield(Instance{}, err)
			return
		}
		forward(r.channel.Each(ctx, selector(service, opts), call), yield)
	}
}

func selector(service string, opts []CallerOption) grpcstream.Selector {
	s := grpcstream.Selector{Service: service}
	for _, o := range opts {
		if o != nil {
			o.applyCaller(&s)
		}
	}
	return s
}

// forward yields the channel's instances as the node's.
func forward(seq iter.Seq2[grpcstream.Instance, error], yield func(Instance, error) bool) {
	for i, err := range seq {
		if !yield(Instance{
			ID: i.Peer, Tags: i.Tags, Self: i.Self, Connected: i.Connected, Health: string(i.Health), Path: string(i.Path),
			RTT: i.RTT, InFlight: i.InFlight, Aside: i.Aside,
		}, err) {
			return
		}
	}
}
