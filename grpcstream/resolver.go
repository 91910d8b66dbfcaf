package grpcstream

import (
	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/resolver"
)

// hubResolver resolves a channel's target to nothing but its hub: the hub knows the peers. It overrides the authority,
// which each connection has of its own.
type hubResolver struct {
	hub    *hub
	config string
}

// Scheme implements resolver.Builder.
func (hubResolver) Scheme() string { return Scheme }

// OverrideAuthority implements resolver.AuthorityOverrider.
func (hubResolver) OverrideAuthority(resolver.Target) string { return "p2p" }

// Build implements resolver.Builder.
func (r hubResolver) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	err := cc.UpdateState(resolver.State{
		ServiceConfig: cc.ParseServiceConfig(r.config),
		Attributes:    attributes.New(hubKey{}, r.hub),
	})
	if err != nil {
		return nil, err
	}
	return noResolver{}, nil
}

// noResolver is a resolver with nothing more to say.
type noResolver struct{}

// ResolveNow implements resolver.Resolver.
func (noResolver) ResolveNow(resolver.ResolveNowOptions) {}

// Close implements resolver.Resolver.
func (noResolver) Close() {}
