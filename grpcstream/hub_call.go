package grpcstream

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lynn9388/p2p/grpcstream/internal/resume"
)

// triedMax is the number of peers that a call remembers to have tried: gRPC makes at most five attempts.
const triedMax = 4

// A call is the state of one call in the hub. It is the call's context, too, so that it costs one allocation. The
// attempts of a call come one after the other; between begin and end it needs no lock.
type call struct {
	context.Context //nolint:containedctx // it is a context: the parent's, with one more value

	sel   *selector
	tried [triedMax]*hubPeer
	link  *link  // of the last attempt
	n     int    // attempts so far
	turn  uint64 // the call's place in the rotation of its service
	begun bool   // turn is set

	since   time.Time // when the call was held first; zero: never
	hinted  bool      // its selector's addresses were given to a dial
	hold    holdKind  // why it is held now
	patient bool      // wait-for-ready: held until its own deadline
	unary   bool      // it has one request and one answer
	resumes bool      // it is to outlive its connection
	repeats int       // how often it may be made again

	taken atomic.Bool // the call is under way
}

// begin returns the call, and its context, as that of the one about to be made in it: an interceptor may make a call
// again, which then goes to peers not tried before, and even at the same time, which then is another call. end must
// follow when it is no longer under way.
func (c *call) begin(ctx context.Context) (context.Context, *call) {
	if !c.taken.CompareAndSwap(false, true) {
		c = &call{Context: ctx, sel: c.sel}
		c.taken.Store(true)
		return c, c
	}
	c.since, c.hold = time.Time{}, notHeld
	return ctx, c
}

func (c *call) end() { c.taken.Store(false) }

// callKey is the key under which a call finds itself in a context derived from it.
type callKey struct{}

// Value implements context.Context.
func (c *call) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// callFrom returns the call that ctx belongs to, or nil.
func callFrom(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// service returns the service whose instances may take the call, by its method's full name.
func (c *call) service(method string) string {
	if c.sel.service != "" {
		return c.sel.service
	}
	return serviceOf(method)
}

// serviceOf returns the service of a method's full name, "/package.Service/Method", which an RPC that carries a resumable
// stream of it adds to.
func serviceOf(method string) string {
	method = strings.TrimSuffix(strings.TrimPrefix(method, "/"), resume.Suffix)
	if i := strings.LastIndexByte(method, '/'); i >= 0 {
		return method[:i]
	}
	return method
}

// cause puts the reason why the tunnel of the last attempt ended in place of what gRPC made of it.
func (c *call) cause(err error) error {
	if c.link == nil || c.link.tunnel == nil {
		return err
	}
	return c.link.tunnel.explain(err)
}

// hasTried tells whether an earlier attempt went to p.
func (c *call) hasTried(p *hubPeer) bool {
	for i := range min(c.n, triedMax) {
		if c.tried[i] == p {
			return true
		}
	}
	return false
}

// attempt notes that an attempt goes over l.
func (c *call) attempt(l *link) {
	c.tried[c.n%triedMax], c.link = l.peer, l
	c.n++
	c.hold = notHeld
}

// A holdKind says why a call is held.
type holdKind uint8

const (
	notHeld    holdKind = iota
	noInstance          // nobody is known to offer the service
	noPeer              // the peer is not known
	dialing             // on the way to a peer
	learning            // on the way to learn whether an instance is serving
	unfit               // every instance says that it is not serving
	failing             // everyone who could take it failed lately
)
