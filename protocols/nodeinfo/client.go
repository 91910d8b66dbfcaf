package nodeinfo

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/grpcstream"
)

// timeout ends a call whose context has no deadline of its own.
const timeout = 10 * time.Second

// pingSize is the size of the payload that Ping sends, in bytes.
const pingSize = 32

// ErrAnswer means that a node answered, but not as the protocol demands: too much, malformed or, for a ping,
// something else than was sent. Errors of the call itself keep their gRPC status.
var ErrAnswer = errors.New("answer breaks the protocol")

// Ping calls the node behind cc and returns the round trip of the whole call, which includes the time to connect when
// no tunnel exists yet. cc must lead to one node, not to any instance of a service. Without a deadline in ctx it gives
// up after 10 s.
func Ping(ctx context.Context, cc grpc.ClientConnInterface) (time.Duration, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	payload := make([]byte, pingSize)
	_, _ = rand.Read(payload) // never fails, says its doc
	start := time.Now()
	res, err := NewNodeInfoServiceClient(cc).Ping(ctx, &PingRequest{Payload: payload}, options())
	if err != nil {
		return 0, fmt.Errorf("nodeinfo: ping: %w", err)
	}
	if !bytes.Equal(res.GetPayload(), payload) {
		return 0, fmt.Errorf("nodeinfo: ping: %w: not the bytes that were sent", ErrAnswer)
	}
	return time.Since(start), nil
}

// Get returns what the node behind cc says of itself. Texts that are too long are cut, addresses that are malformed
// or too many are left out. Without a deadline in ctx it gives up after 10 s.
func Get(ctx context.Context, cc grpc.ClientConnInterface) (Info, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	res, err := NewNodeInfoServiceClient(cc).Info(ctx, &InfoRequest{}, options())
	if err != nil {
		return Info{}, fmt.Errorf("nodeinfo: info: %w", err)
	}
	return info(res), nil
}

func info(res *InfoResponse) Info {
	out := Info{Name: cut(res.GetName()), Version: cut(res.GetVersion())}
	if t := res.GetStartTime(); t.IsValid() {
		out.Start = t.AsTime()
	}
	for _, s := range res.GetAddresses()[:min(len(res.GetAddresses()), MaxAddrs)] {
		if a, err := ma.NewMultiaddr(s); err == nil && len(a) > 0 {
			out.Addrs = append(out.Addrs, a)
		}
	}
	return out
}

// List returns the services of the node behind cc with their methods, sorted by name as the node sent them. A list
// over the limits or with a malformed name is refused with [ErrAnswer]. Without a deadline in ctx it gives up after
// 10 s.
func List(ctx context.Context, cc grpc.ClientConnInterface) ([]*Service, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	res, err := NewNodeInfoServiceClient(cc).Services(ctx, &ServicesRequest{}, options())
	if err != nil {
		return nil, fmt.Errorf("nodeinfo: services: %w", err)
	}
	if err := check(res.GetServices()); err != nil {
		return nil, fmt.Errorf("nodeinfo: services: %w: %w", ErrAnswer, err)
	}
	return res.GetServices(), nil
}

// Names returns the names of the services that the user of the node behind cc offers: [List] without those that every
// node has ([grpcstream.IsSystemService]).
func Names(ctx context.Context, cc grpc.ClientConnInterface) ([]string, error) {
	services, err := List(ctx, cc)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range services {
		if name := s.GetName(); !grpcstream.IsSystemService(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func check(services []*Service) error {
	if n := len(services); n > MaxServices {
		return fmt.Errorf("%d services, at most %d are allowed", n, MaxServices)
	}
	for i, s := range services {
		switch {
		case !validName(s.GetName()):
			return fmt.Errorf("malformed service name %+q", cut(s.GetName()))
		case i > 0 && services[i-1].GetName() >= s.GetName():
			return fmt.Errorf("service %q is out of order or there twice", s.GetName())
		case len(s.GetMethods()) > MaxMethods:
			return fmt.Errorf("service %q has %d methods, at most %d are allowed", s.GetName(), len(s.GetMethods()), MaxMethods)
		}
		for _, m := range s.GetMethods() {
			if !validName(m.GetName()) {
				return fmt.Errorf("malformed method name %+q", cut(m.GetName()))
			}
		}
	}
	return nil
}

func options() grpc.CallOption { return grpc.MaxCallRecvMsgSize(maxAnswer) }

// bounded gives ctx a deadline when it has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}
