package host

import (
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	connrate "github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"

	"github.com/lynn9388/p2p/internal/addr"
)

// What one private address may do: a LAN or an office behind one address must work, where libp2p's own limits allow 8
// connections and one more every 5 s. Loopback addresses have no such limit, public ones keep libp2p's.
const (
	privateConns = 256
	privateRate  = 20 // new connections a second
	privateBurst = 256

	// privateUnverified is how many QUIC connections a second may begin from private addresses before the addresses
	// are verified, which costs a round trip.
	privateUnverified = 64

	// maxAddresses bounds the table of private addresses; beyond it, idle ones are forgotten early.
	maxAddresses = 4096
)

// localNetworks are the networks that libp2p's own limits by address do not apply to: loopback because it is trusted
// with the system's limits, the others because [limiter] counts them.
func localNetworks() (four, six []netip.Prefix) {
	for _, s := range []string{"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"} {
		four = append(four, netip.MustParsePrefix(s))
	}
	for _, s := range []string{"::1/128", "fc00::/7", "fe80::/10"} {
		six = append(six, netip.MustParsePrefix(s))
	}
	return four, six
}

// newResourceManager returns a manager with limits for this machine.
func newResourceManager(metrics bool) (network.ResourceManager, error) {
	limits := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&limits)
	// Without these a machine with 1 GiB refuses the 65th connection and the 33rd handshake of a network that starts
	// all at once.
	raise := func(b *rcmgr.BaseLimit, conns int) {
		b.ConnsInbound, b.ConnsOutbound, b.Conns = max(b.ConnsInbound, conns), max(b.ConnsOutbound, conns), max(b.Conns, 2*conns)
		b.FD = max(b.FD, conns)
	}
	raise(&limits.SystemBaseLimit, 256)
	raise(&limits.TransientBaseLimit, 128)
	// A stream may hold up to its window before it is read; libp2p counts a sixteenth of ours.
	limits.PeerBaseLimit.StreamsInbound = 128
	limits.PeerLimitIncrease.StreamsInbound = 0

	four, six := localNetworks()
	unlimited := func(networks []netip.Prefix) (conns []rcmgr.NetworkPrefixLimit) {
		for _, p := range networks {
			conns = append(conns, rcmgr.NetworkPrefixLimit{Network: p, ConnCount: math.MaxInt})
		}
		return conns
	}
	var rates []connrate.PrefixLimit
	for _, p := range append(append([]netip.Prefix{}, four...), six...) {
		rates = append(rates, connrate.PrefixLimit{Prefix: p})
	}
	opts := []rcmgr.Option{
		rcmgr.WithNetworkPrefixLimit(unlimited(four), unlimited(six)),
		rcmgr.WithConnRateLimiters(&connrate.Limiter{
			NetworkPrefixLimits: rates,
			SubnetRateLimiter: connrate.SubnetLimiter{ // libp2p's own for the rest of the world
				IPv4SubnetLimits: []connrate.SubnetLimit{{PrefixLength: 32, Limit: connrate.Limit{RPS: 0.2, Burst: 16}}},
				IPv6SubnetLimits: []connrate.SubnetLimit{
					{PrefixLength: 56, Limit: connrate.Limit{RPS: 0.2, Burst: 16}},
					{PrefixLength: 48, Limit: connrate.Limit{RPS: 0.5, Burst: 80}},
				},
				GracePeriod: time.Minute,
			},
		}),
	}
	if !metrics {
		opts = append(opts, rcmgr.WithMetricsDisabled())
	}
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.AutoScale()), opts...)
	if err != nil {
		return nil, err
	}
	inner, ok := rm.(manager)
	if !ok {
		return nil, fmt.Errorf("resource manager %T shows no state", rm)
	}
	return &limiter{
		manager:    inner,
		addresses:  map[netip.Addr]*address{},
		unverified: rate.NewLimiter(privateUnverified, privateUnverified),
	}, nil
}

// manager is libp2p's resource manager with the view of what is in use that programs ask it for.
type manager interface {
	network.ResourceManager
	rcmgr.ResourceManagerState
}

// limiter is a resource manager that also counts incoming connections by private address, which libp2p's own can
// only do for all private addresses together.
type limiter struct {
	manager
	unverified *rate.Limiter

	mu        sync.Mutex
	addresses map[netip.Addr]*address
}

// address is what one private address has open, and how fast it may open more.
type address struct {
	conns int
	rate  *rate.Limiter
}

// OpenConnection implements [network.ResourceManager].
func (l *limiter) OpenConnection(dir network.Direction, fd bool, endpoint ma.Multiaddr) (network.ConnManagementScope, error) {
	ip, ok := addr.IP(endpoint)
	if ip = ip.Unmap().WithZone(""); dir != network.DirInbound || !ok || addr.IPScope(ip) != addr.Private {
		return l.manager.OpenConnection(dir, fd, endpoint)
	}
	if err := l.take(ip); err != nil {
		return nil, err
	}
	scope, err := l.manager.OpenConnection(dir, fd, endpoint)
	if err != nil {
		l.release(ip)
		return nil, err
	}
	return &countedScope{ConnManagementScope: scope, release: sync.OnceFunc(func() { l.release(ip) })}, nil
}

// limitError is the refusal of one more connection from an address.
type limitError struct {
	ip   netip.Addr
	what string
}

// Error implements error.
func (e *limitError) Error() string { return "host: too many " + e.what + " from " + e.ip.String() }

// Is tells that the error is a limit of the resource manager's kind.
func (e *limitError) Is(target error) bool { return target == network.ErrResourceLimitExceeded }

func (l *limiter) take(ip netip.Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.addresses[ip]
	if a == nil {
		if len(l.addresses) >= maxAddresses {
			l.sweep()
		}
		a = &address{rate: rate.NewLimiter(privateRate, privateBurst)}
		l.addresses[ip] = a
	}
	if a.conns >= privateConns {
		return &limitError{ip, "connections"}
	}
	if !a.rate.Allow() {
		return &limitError{ip, "new connections a second"}
	}
	a.conns++
	return nil
}

func (l *limiter) release(ip netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.addresses[ip]; a != nil {
		a.conns--
		if a.conns <= 0 && a.rate.Tokens() >= privateBurst {
			delete(l.addresses, ip)
		}
	}
}

// sweep forgets the addresses that have nothing open: those that have been quiet, and if there are none, all. The
// caller holds the lock.
func (l *limiter) sweep() {
	before := len(l.addresses)
	maps.DeleteFunc(l.addresses, func(_ netip.Addr, a *address) bool { return a.conns <= 0 && a.rate.Tokens() >= privateBurst })
	if len(l.addresses) == before {
		maps.DeleteFunc(l.addresses, func(_ netip.Addr, a *address) bool { return a.conns <= 0 })
	}
}

// VerifySourceAddress implements [network.ResourceManager].
func (l *limiter) VerifySourceAddress(a net.Addr) bool {
	if ap, err := netip.ParseAddrPort(a.String()); err == nil && addr.IPScope(ap.Addr()) == addr.Private {
		return !l.unverified.Allow()
	}
	return l.manager.VerifySourceAddress(a)
}

// countedScope gives its address's place back when the connection is done.
type countedScope struct {
	network.ConnManagementScope
	release func()
}

// Done implements [network.ConnManagementScope].
func (s *countedScope) Done() {
	s.ConnManagementScope.Done()
	s.release()
}
