package host

import (
	"maps"
	"net"
	"net/netip"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"

	"github.com/lynn9388/p2p/internal/addr"
)

// What one private address may do: a LAN or an office behind one address must work, where libp2p's own limits allow 8
// connections and one more every 5 s. Loopback addresses have no such limit, public ones keep libp2p's. Relayed
// connections come from the address of their relay, which is held to the same.
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
	if dir != network.DirInbound { // whom to dial, and how often, is up to this host
		return l.manager.OpenConnection(dir, fd, uncounted())
	}
	ip, ok := addr.IP(endpoint)
	ip = ip.Unmap().WithZone("")
	switch {
	case ok && addr.Relayed(endpoint):
		endpoint = uncounted()
	case !ok || addr.IPScope(ip) != addr.Private:
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

// uncounted is an address for which libp2p's manager has no limits by address. Without any it would hold all such
// connections together to those of one.
func uncounted() ma.Multiaddr { return ma.StringCast("/ip4/127.0.0.1") }

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
