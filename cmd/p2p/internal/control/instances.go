package control

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/grpcstream"
)

// healthTimeout bounds how long an instance is asked for its health.
const healthTimeout = 2 * time.Second

// FindInstances implements ControlServiceServer.
func (s *Server) FindInstances(req *FindInstancesRequest, stream grpc.ServerStreamingServer[FindInstancesResponse]) error {
	for _, tag := range req.GetTags() {
		if err := grpcstream.CheckTag(tag); err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
	}
	if req.GetService() == "" {
		req.Search = Search_SEARCH_UNSPECIFIED
	}
	ctx, cancel := context.WithTimeout(stream.Context(), p2p.DefaultDiscoveryTimeout)
	defer cancel()
	f := &finding{s: s, req: req, stream: stream}
	err := f.find(ctx)
	f.sending.Wait()
	switch {
	case f.failed != nil:
		return f.failed
	case f.count > 0 || req.GetSearch() == Search_SEARCH_UNSPECIFIED:
		return nil
	case err != nil:
		return plain(err)
	default:
		return status.Errorf(codes.Unavailable, "no other node offers %s%s (looked for %s): \"p2p services ls\" shows what is there",
			req.GetService(), withTags(req.GetTags()), p2p.DefaultDiscoveryTimeout.Round(time.Second))
	}
}

func withTags(tags []string) string {
	if len(tags) == 0 {
		return ""
	}
	return " with the tags " + strings.Join(tags, ", ")
}

// finding is one call of FindInstances.
type finding struct {
	s       *Server
	req     *FindInstancesRequest
	stream  grpc.ServerStreamingServer[FindInstancesResponse]
	count   int
	sending sync.WaitGroup
	mu      sync.Mutex // one Send at a time
	failed  error      // of Send
}

// find hands over the instances that are known and, if that was asked for, looks for further ones until ctx ends.
func (f *finding) find(ctx context.Context) error {
	if f.req.GetSearch() == Search_SEARCH_ALL {
		return f.of(ctx, f.req.GetService(), false)
	}
	known, cancel := context.WithCancel(ctx)
	cancel() // ends the search before it begins: what is known comes all the same
	var errs []error
	for _, service := range f.services() {
		errs = append(errs, f.of(known, service, false))
	}
	if f.req.GetSearch() == Search_SEARCH_FIRST && f.count == 0 {
		return f.of(ctx, f.req.GetService(), true)
	}
	return errors.Join(errs...)
}

// services are those that were asked for.
func (f *finding) services() []string {
	if name := f.req.GetService(); name != "" {
		return []string{name}
	}
	var names []string
	for _, p := range f.s.cfg.Node.Peers() {
		names = append(names, p.Services...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// of hands over the instances of one service.
func (f *finding) of(ctx context.Context, service string, onlyFirst bool) error {
	for i, err := range f.s.cfg.Node.Instances(ctx, service, f.options()...) {
		if err != nil {
			return err
		}
		f.count++
		f.sending.Go(func() { f.send(service, i) })
		if onlyFirst {
			break
		}
	}
	return nil
}

func (f *finding) options() []p2p.CallerOption {
	var out []p2p.CallerOption
	for _, tag := range f.req.GetTags() {
		key, value, _ := strings.Cut(tag, "=")
		out = append(out, p2p.WithTag(key, value))
	}
	return out
}

// send completes what is known of an instance and sends it.
func (f *finding) send(service string, i p2p.Instance) {
	p := f.s.find(i.ID) // knows the path and the round trip also when no call was made yet
	out := &Instance{
		Service: service, Peer: sender(p), Tags: i.Tags, Health: i.Health, Path: i.Path,
		InFlight: int32(min(i.InFlight, math.MaxInt32)), Self: i.Self,
	}
	if out.Path == "" {
		out.Path = p.GetPath()
	}
	if out.GetPath() == p.GetPath() {
		out.Relay = p.GetRelay()
	}
	if out.Rtt = p.GetRtt(); i.RTT > 0 {
		out.Rtt = durationpb.New(i.RTT)
	}
	if !i.Aside.IsZero() {
		out.Aside = timestamppb.New(i.Aside)
	}
	if f.req.GetAskHealth() && out.GetHealth() == "" && out.GetPath() != "" {
		out.Health = f.health(service, i.ID)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil {
		f.failed = f.stream.Send(&FindInstancesResponse{Instance: out})
	}
}

// health asks an instance whether it is serving.
func (f *finding) health(service string, id peer.ID) string {
	ctx, cancel := context.WithTimeout(f.stream.Context(), healthTimeout)
	defer cancel()
	res, err := healthpb.NewHealthClient(f.s.cfg.Node.Peer(id.String())).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	switch status.Code(err) {
	case codes.OK:
		return strings.ReplaceAll(strings.ToLower(res.GetStatus().String()), "_", " ")
	case codes.Unimplemented, codes.NotFound:
		return "" // it does not say
	default:
		return "no answer"
	}
}

// sender says who a peer is.
func sender(p *Peer) *Sender {
	return &Sender{Id: p.GetId(), Name: p.GetName(), PinnedName: p.GetPinnedName()}
}
