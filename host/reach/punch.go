package reach

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
)

const (
	// An attempt lasts ten round trips, within these bounds: on a bad line the handshakes need some of them again.
	windowLeast = 2 * time.Second
	windowMost  = 5 * time.Second
	// lateAfter is how much longer than a round trip the server of an attempt waits for the client's handshake before it
	// dials as a client itself. Where its own NAT is symmetric, nobody gets in, and only it gets out.
	lateAfter = 200 * time.Millisecond
	// tcpAgain is the pause after a TCP dial that was refused: the other side's NAT may have answered because that side's
	// own packet had not left yet.
	tcpAgain = 75 * time.Millisecond
	// quicStep is the head start of TCP over QUIC to a private address, where one packet's loss is no matter.
	quicStep = 100 * time.Millisecond
)

// punch dials all addresses of the peer at a moment at which the other side does so as well, and waits for a direct
// connection, whoever made it.
//
// base outlasts ctx, which ends with the attempt: a handshake may have to go on, see dialTCP.
//
// The client of the attempt makes handshakes, the server sends what opens its NAT for them: over QUIC packets that mean
// nothing, over TCP its own half of a simultaneous open. Both leave from the listening port. Where the NATs let nobody in,
// the packets of both cross; where one lets everybody in, the client's handshake is a plain dial.
func (j *job) punch(base, ctx context.Context, p peer.ID, id int, ex exchanged, wait time.Duration, done *Attempt) outcome {
	goesOn := false
	if j.input(func(c *core) { goesOn = c.dialing(p, id) }); !goesOn {
		return outcomeBusy
	}
	done.Role = ex.role
	window := min(max(10*ex.rtt, windowLeast), windowMost)
	connected, stop := j.await(p)
	defer stop()
	a := &assault{job: j, peer: p, window: window, late: ex.rtt + lateAfter, role: ex.role, how: "punch", connected: connected}
	if ex.theirs.public {
		a.how = "dial"
	}
	if !sleepFor(ctx, wait, connected) {
		return outcomeFailed
	}
	dials, cancel := context.WithTimeout(base, window)
	givenUp := context.AfterFunc(ctx, cancel)
	a.begin(dials, ex)
	finished := make(chan struct{})
	j.wg.Go(func() {
		defer cancel()
		a.all.Wait()
		close(finished)
	})
	select {
	case <-connected:
	case <-finished: // each was refused, or the time is up
	}
	select {
	case <-connected:
		givenUp()
		done.Met = a.results(j.directAddrs(p))
		return outcomeDirect
	default:
		done.Met = a.results(nil)
		done.Err = explain(ex, done.Met)
		return outcomeFailed
	}
}

// directAddrs returns the other ends of the direct connections to p.
func (r *Reach) directAddrs(p peer.ID) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, c := range r.direct(p) {
		out = append(out, c.RemoteMultiaddr())
	}
	return out
}

// await returns a channel that is closed as soon as there is a direct connection to p.
func (r *Reach) await(p peer.ID) (connected <-chan struct{}, stop func()) {
	w := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.directAddrs(p)) > 0 {
		close(w)
		return w, func() {}
	}
	r.waiting[p] = append(r.waiting[p], w)
	return w, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.waiting[p] = slices.DeleteFunc(r.waiting[p], func(o chan struct{}) bool { return o == w }); len(r.waiting[p]) == 0 {
			delete(r.waiting, p)
		}
	}
}

// sleepFor waits, and tells whether that was for the whole time.
func sleepFor(ctx context.Context, d time.Duration, stop <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-stop:
	case <-ctx.Done():
	}
	return false
}

// assault is the dials of one attempt.
type assault struct {
	*job
	peer      peer.ID
	window    time.Duration
	late      time.Duration
	role      Role
	how       string
	connected <-chan struct{}
	begun     time.Time
	all       sync.WaitGroup

	mu  sync.Mutex
	met []Met // Took is 0 while one is under way
}

// begin starts a dial of each address.
func (a *assault) begin(ctx context.Context, ex exchanged) {
	a.begun = time.Now()
	until, cancel := context.WithCancel(ctx) // ends with the first connection as well
	a.all.Go(func() {
		defer cancel()
		select {
		case <-a.connected:
		case <-ctx.Done():
		}
	})
	for _, at := range ex.theirs.addrs {
		dial := a.dialQUIC
		if kindOf(at) == kindTCP {
			dial = a.dialTCP
		}
		a.start(at, a.how, func() error { return dial(ctx, until, at) })
	}
	for _, at := range ex.theirs.nearby {
		a.start(at, "lan", func() error { return a.dialNear(until, at) })
	}
}

// start runs one dial and notes what it met.
func (a *assault) start(at ma.Multiaddr, how string, dial func() error) {
	a.mu.Lock()
	i := len(a.met)
	a.met = append(a.met, Met{Addr: at, How: how, Err: noAnswer})
	a.mu.Unlock()
	a.all.Go(func() {
		err := dial()
		a.mu.Lock()
		defer a.mu.Unlock()
		m := &a.met[i]
		m.Took = max(1, time.Since(a.begun)) // over
		switch {
		case err == nil:
			m.Err = ""
		case !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded):
			m.Err = causeText(err)
		}
	})
}

// results returns what each address met so far, when there are connections to those given. One that the peer came from is
// added: behind a symmetric NAT it could not name it.
func (a *assault) results(connected []ma.Multiaddr) []Met {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := slices.Clone(a.met)
	for i := range out {
		m := &out[i]
		switch {
		case slices.ContainsFunc(connected, m.Addr.Equal):
			m.Err = ""
		case len(connected) > 0 && m.Took == 0:
			m.Err = "not needed any more"
		}
		if m.Took == 0 {
			m.Took = time.Since(a.begun)
		}
	}
	for _, at := range connected {
		if !slices.ContainsFunc(out, func(m Met) bool { return m.Addr.Equal(at) }) {
			out = append(out, Met{Addr: at, How: a.how, Took: time.Since(a.begun)})
		}
	}
	return out
}

func (a *assault) dial(ctx context.Context, at ma.Multiaddr) error {
	_, err := host.DialVia(ctx, a.h, peer.AddrInfo{ID: a.peer, Addrs: []ma.Multiaddr{at}})
	return err
}

// dialQUIC makes the handshake, or opens the way for the other side's; the server makes it as well if none came.
func (a *assault) dialQUIC(_, until context.Context, at ma.Multiaddr) error {
	if a.role == RoleServer {
		open, cancel := context.WithTimeout(until, a.late)
		err := a.dial(network.WithSimultaneousConnect(open, false, "direct"), at)
		cancel()
		if err == nil || until.Err() != nil {
			return err
		}
	}
	return a.dial(network.WithSimultaneousConnect(until, true, "direct"), at)
}

// dialTCP makes one half of a simultaneous open, again and again while it is refused. The server's handshake is not given
// up when there is another connection: the client's end of it may be complete.
func (a *assault) dialTCP(ctx, until context.Context, at ma.Multiaddr) error {
	as := ctx
	if a.role == RoleClient {
		as = until
	}
	for {
		err := a.dial(network.WithSimultaneousConnect(as, a.role == RoleClient, "direct"), at)
		if err == nil || until.Err() != nil {
			return err
		}
		if _, _, other := host.Answered(err); other || !sleepFor(until, tcpAgain, a.connected) {
			return err
		}
	}
}

// dialNear is a plain dial, the client's first: in a network that lets only one of the two in it is the other's turn.
func (a *assault) dialNear(until context.Context, at ma.Multiaddr) error {
	var wait time.Duration
	if a.role == RoleServer {
		wait += a.late
	}
	if kindOf(at) == kindQUIC {
		wait += quicStep
	}
	if !sleepFor(until, wait, a.connected) {
		return context.Canceled
	}
	return a.dial(until, at)
}
