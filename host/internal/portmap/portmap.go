// Package portmap asks the router of this machine's network to let connections from outside in, at ports that it maps to
// this machine's: by NAT-PMP (RFC 6886) and by UPnP (Internet Gateway Device), whichever the router answers first.
//
// It talks to the default gateway alone, and to it only while this machine's own address is a private one. A router that
// is not there is looked for again, at once when this machine's address changes.
package portmap

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/lynn9388/p2p/internal/addr"
)

// Port is a port of this machine.
type Port struct {
	Network string // "tcp" or "udp"
	Number  uint16
}

const (
	// lookEvery is how often this machine's address and ports are looked at: nothing is sent for it.
	lookEvery = 5 * time.Second

	// renewEvery is how often mappings are renewed, so that a router that has forgotten them has them again soon; lifetime
	// is how long one outlasts a process that died.
	renewEvery = time.Minute
	lifetime   = 10 * time.Minute

	// A network without such a router is asked again after the first pause, then after twice as long, up to the last.
	firstPause = 10 * time.Second
	lastPause  = 5 * time.Minute

	// mapTries is how many outside ports are tried for one inside. The first is of the same number.
	mapTries = 4

	// firstRandomPort begins the range of the others.
	firstRandomPort = 10_000

	// leaveTime is how long the router has at the end to take the mappings back.
	leaveTime = time.Second
)

// errPortTaken says that the outside port is mapped to another machine.
var errPortTaken = errors.New("the outside port is taken")

// router maps ports.
type router interface {
	String() string
	// external returns the router's outside address.
	external(ctx context.Context) (netip.Addr, error)
	// add maps port, or renews its mapping, and returns the outside port, which may be another than the wanted one.
	add(ctx context.Context, port Port, want uint16, lifetime time.Duration) (uint16, error)
	// remove takes a mapping back.
	remove(ctx context.Context, port Port, outside uint16) error
}

// place is where this machine is in its network.
type place struct{ inside, gateway netip.Addr }

// Mapper keeps ports mapped. Its methods may be called concurrently, before, while and after Run.
type Mapper struct {
	ports func() []Port
	log   *slog.Logger
	where func() (place, error) // a zero place: nowhere that has such a router
	find  func(ctx context.Context, at place) (router, error)

	again chan struct{} // holds a value when there is something to look at

	mu      sync.Mutex
	outside netip.Addr
	mapped  map[Port]uint16 // the outside ports
}

// New returns a mapper of those ports that a function returns when it is asked, which is every few seconds and after
// [Mapper.Look]. It starts nothing.
func New(ports func() []Port, log *slog.Logger) *Mapper {
	return &Mapper{ports: ports, log: log, where: locate, find: find, again: make(chan struct{}, 1)}
}

// Look has the ports looked at soon.
func (m *Mapper) Look() {
	select {
	case m.again <- struct{}{}:
	default:
	}
}

// Outside returns where the router lets connections to a port in. It returns false when it does not.
func (m *Mapper) Outside(p Port) (netip.AddrPort, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	port, ok := m.mapped[p]
	return netip.AddrPortFrom(m.outside, port), ok
}

// Found tells whether there is a router that maps ports.
func (m *Mapper) Found() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.outside.IsValid()
}

// Run keeps the ports mapped until ctx ends, which is no error, and has the router take them back then.
func (m *Mapper) Run(ctx context.Context) error {
	k := keeping{Mapper: m, pause: firstPause}
	defer k.leave(ctx)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		k.look(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-m.again:
		}
	}
}

// keeping is the state of Run.
type keeping struct {
	*Mapper
	at     place
	router router         // nil: none
	here   place          // of known and had
	known  router         // the last one here, also when it does not answer for the moment
	had    map[Port]lease // what that has mapped, whether it still answers or not
	asked  []Port         // what the router was last asked for, whether it has mapped all of it or not
	next   time.Time
	pause  time.Duration
}

// A lease is a port that the router has mapped, and until when if it forgets.
type lease struct {
	port  uint16
	until time.Time
}

// look does what is due.
func (k *keeping) look(ctx context.Context, now time.Time) {
	at, err := k.where()
	if err != nil {
		at = place{}
	}
	if at != k.at { // another network: what the old router mapped is of no use here
		k.at, k.router, k.next, k.pause = at, nil, now, firstPause
		k.publish(netip.Addr{}, nil)
	}
	if at == (place{}) {
		return
	}
	if at != k.here {
		k.here, k.known, k.had = at, nil, map[Port]lease{}
	}
	ports := k.ports()
	due := !now.Before(k.next)
	if k.router == nil && len(ports) == 0 || !due && (k.router == nil || slices.Equal(ports, k.asked)) {
		return
	}
	if k.router == nil {
		if k.router, err = k.find(ctx, at); err != nil {
			k.wait(now, err)
			return
		}
		k.known = k.router
		k.log.Debug("the router maps ports", "addr", at.gateway, "proto", k.router.String())
	}
	k.asked = ports
	if err := k.renew(ctx, now, ports); err != nil {
		if ctx.Err() != nil { // it is no fault of the router's
			return
		}
		k.router = nil
		k.publish(netip.Addr{}, nil)
		k.wait(now, err)
		return
	}
	k.next, k.pause = now.Add(renewEvery), firstPause
}

// wait puts the next search off.
func (k *keeping) wait(now time.Time, err error) {
	k.log.Debug("no port is mapped", "err", err)
	k.next, k.pause = now.Add(k.pause), min(2*k.pause, lastPause)
}

var errNotPublic = errors.New("the router has no public address itself")

// renew maps all ports anew and takes back what is not wanted any more. It fails when none is mapped.
func (k *keeping) renew(ctx context.Context, now time.Time, ports []Port) error {
	outside, err := k.router.external(ctx)
	if err != nil {
		return err
	}
	if addr.IPScope(outside) != addr.Public {
		return errNotPublic
	}
	maps.DeleteFunc(k.had, func(_ Port, l lease) bool { return now.After(l.until) })
	mapped := map[Port]uint16{}
	for _, p := range ports {
		got, perr := k.mapPort(ctx, p, k.had[p].port)
		if perr != nil {
			err = perr
			continue
		}
		mapped[p], k.had[p] = got, lease{got, now.Add(lifetime)}
	}
	for p, l := range k.had {
		if !slices.Contains(ports, p) && k.router.remove(ctx, p, l.port) == nil {
			delete(k.had, p)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(mapped) == 0 && err != nil {
		return err
	}
	k.publish(outside, mapped)
	return nil
}

// mapPort maps a port, to the outside port that it had before or that has its number, or to a random one.
func (k *keeping) mapPort(ctx context.Context, p Port, before uint16) (uint16, error) {
	want := before
	if want == 0 {
		want = p.Number
	}
	var err error
	for range mapTries {
		var got uint16
		if got, err = k.router.add(ctx, p, want, lifetime); err == nil && got != 0 {
			return got, nil
		}
		if err == nil {
			err = errPortTaken
		}
		if !errors.Is(err, errPortTaken) {
			break
		}
		want = firstRandomPort + uint16(rand.IntN(1<<16-firstRandomPort))
	}
	return 0, err
}

// publish says what is mapped from now on.
func (m *Mapper) publish(outside netip.Addr, mapped map[Port]uint16) {
	m.mu.Lock()
	changed := m.outside != outside || !maps.Equal(m.mapped, mapped)
	m.outside, m.mapped = outside, mapped
	m.mu.Unlock()
	if changed {
		m.log.Debug("mapped ports", "addr", outside, "count", len(mapped))
	}
}

// leave has the router take the mappings back.
func (k *keeping) leave(ctx context.Context) {
	k.publish(netip.Addr{}, nil)
	if k.known == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	var wg sync.WaitGroup
	for p, l := range k.had {
		if time.Now().Before(l.until) { // else it may be somebody else's by now
			wg.Go(func() { _ = k.known.remove(ctx, p, l.port) })
		}
	}
	wg.Wait()
}
