package grpcstream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/resolver"

	"github.com/lynn9388/p2p/internal/safetext"
)

// clientResolverBuilder makes the resolvers of one client.
type clientResolverBuilder struct{ client *client }

// Scheme implements resolver.Builder.
func (clientResolverBuilder) Scheme() string { return Scheme }

// OverrideAuthority implements resolver.AuthorityOverrider.
func (b clientResolverBuilder) OverrideAuthority(resolver.Target) string { return b.client.name() }

// Build implements resolver.Builder.
func (b clientResolverBuilder) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	c := b.client
	dir, err := newDirectory(c.host, c.cfg.Network, c.cfg.Self, c.cfg.Logger)
	if err != nil {
		return nil, err
	}
	r := &clientResolver{
		client: c, cc: cc, directory: dir, dialer: newDialer(c.host, c.cfg, dir),
		returned: make(chan struct{}, 1),
		failed:   map[peer.ID]bool{},
		returns:  map[peer.ID]int{},
		relayed:  map[peer.ID]bool{},
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	dir.back = r.cameBack
	r.wg.Go(func() { dir.run(ctx, c.cfg.IdleTimeout, func() {}) })
	r.wg.Go(func() { r.run(ctx) })
	return r, nil
}

// clientSettle is how long a direct path must have lasted before a client moves to it. Unlike a [Channel] it has given up
// the old tunnel, for new calls, by the time the new one is ready.
const clientSettle = time.Second

// A clientResolver gives a client the peer it names, or the instances of the service it names. It holds its first
// answer back until there is one, which makes calls wait, and ends the wait by an error. The last instances known are
// kept when all have gone: they may come back.
type clientResolver struct {
	client    *client
	cc        resolver.ClientConn
	directory *directory
	dialer    *dialer
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	told      []peer.ID
	returned  chan struct{} // a peer came back

	mu      sync.Mutex
	failed  map[peer.ID]bool // peers whose last dial failed
	returns map[peer.ID]int  // how often each of them came back
	reset   time.Time        // when one last did
	relayed map[peer.ID]bool // peers whose last dial went over a relay
}

// ResolveNow implements resolver.Resolver. The resolver always has the latest.
func (*clientResolver) ResolveNow(resolver.ResolveNowOptions) {}

// Close implements resolver.Resolver.
func (r *clientResolver) Close() {
	r.cancel()
	r.wg.Wait()
}

// notDialed notes that a peer could not be dialed: gRPC now leaves it alone for a while.
func (r *clientResolver) notDialed(id peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed[id] = true
}

// dialed notes by which path a peer was dialed.
func (r *clientResolver) dialed(p Peer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.relayed, p.ID)
	if p.Path == PathRelay {
		r.relayed[p.ID] = true
	}
}

// move has the peers dialed anew that are called over a relay and have been connected directly for long enough. It
// returns how long it is until it may be time for another one; 0: nobody is to move.
func (r *clientResolver) move() (wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.relayed {
		c := newest(r.client.host.Network().ConnsToPeer(id))
		if c == nil || overRelay(c) {
			continue
		}
		if left := clientSettle - time.Since(c.Stat().Opened); left > 0 {
			wait = max(wait, left)
			continue
		}
		delete(r.relayed, id)
		r.returns[id]++
		select {
		case r.returned <- struct{}{}:
		default:
		}
	}
	return wait
}

// cameBack has a peer that is connected again dialed without waiting, at most once each [flapPause]: its address gets
// another attribute, which makes gRPC take it for a new one. (gRPC's own way to cut the pause short,
// ResetConnectBackoff, walks through the connections while others change them.)
func (r *clientResolver) cameBack(id peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if !r.failed[id] || now.Sub(r.reset) < flapPause {
		return
	}
	r.reset = now
	delete(r.failed, id)
	r.returns[id]++
	select {
	case r.returned <- struct{}{}:
	default:
	}
}

// returnsKey is the key of how often a peer came back, in the attributes of its address.
type returnsKey struct{}

// address returns the address of a peer.
func (r *clientResolver) address(id peer.ID) resolver.Address {
	r.mu.Lock()
	defer r.mu.Unlock()
	return resolver.Address{
		Addr:       id.String(),
		ServerName: id.String(),
		Attributes: withPeerAttribute(attributes.New(resolverKey{}, r).WithValue(returnsKey{}, r.returns[id]), id),
	}
}

func (r *clientResolver) run(ctx context.Context) {
	changed, stop := r.directory.signal()
	defer stop()
	arrived := make(chan struct{}, 1)
	defer r.directory.onConnected(r.client.sel.peer, func() {
		select {
		case arrived <- struct{}{}:
		default:
		}
	})()
	since := time.Now()
	giveUp := time.NewTimer(r.client.cfg.DiscoveryTimeout)
	defer giveUp.Stop()
	look := time.NewTicker(unknownPause) // of new addresses in the peerstore there is no event
	defer look.Stop()
	r.client.unresolved.Store(r.client.noInstance(0))
	settled := time.NewTimer(clientSettle)
	defer settled.Stop()
	for {
		if wait := r.move(); wait > 0 {
			settled.Reset(wait)
		}
		if r.tell() {
			look.Stop()
			giveUp.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-r.returned:
			r.told = r.told[:0:0]
		case <-arrived:
		case <-settled.C:
		case <-look.C:
		case <-giveUp.C:
			err := r.client.noInstance(time.Since(since))
			r.client.unresolved.Store(err)
			r.cc.ReportError(err)
		}
	}
}

// tell hands over the peers known when they have changed, and tells whether any ever was.
func (r *clientResolver) tell() bool {
	ids := r.known()
	if len(ids) == 0 || slices.Equal(ids, r.told) {
		return r.told != nil
	}
	addrs := make([]resolver.Address, len(ids))
	for i, id := range ids {
		addrs[i] = r.address(id)
	}
	r.told = ids
	r.client.unresolved.Store(nil)
	if err := r.cc.UpdateState(resolver.State{Addresses: addrs}); err != nil {
		r.client.cfg.Logger.Debug("grpcstream: a client's balancer refused its addresses", "err", err)
	}
	return true
}

// known returns the peers that calls may go to.
func (r *clientResolver) known() []peer.ID {
	c := r.client
	id := c.sel.peer
	if id == "" {
		return r.directory.instances(c.sel.service)
	}
	if len(c.sel.addrs) > 0 || id == c.host.ID() || r.directory.isConnected(id) || len(c.host.Peerstore().Addrs(id)) > 0 {
		return []peer.ID{id}
	}
	return nil
}

// noInstance is the error of a target that is not known.
func (c *client) noInstance(waited time.Duration) *Error {
	what := fmt.Sprintf("no instance of service %q", safetext.Clean(c.sel.service))
	remedy := "start a node of the same network that registers the service, or check the service's name"
	if c.sel.peer != "" {
		what = fmt.Sprintf("neither a connection nor an address of peer %s", c.sel.peer)
		remedy = "check that it runs in the same network, or name its address as ID@host:port"
	}
	if waited > 0 {
		what += fmt.Sprintf(" is known after %s", waited.Round(time.Millisecond))
	} else {
		what += " is known yet"
	}
	return &Error{Code: codes.Unavailable, Reason: ReasonNoInstance, Message: what, Remedy: remedy}
}
