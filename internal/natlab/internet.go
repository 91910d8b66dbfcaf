//go:build linux

package natlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// packetSize holds a packet: the kernel cuts what is larger than the MTU of 1500 before a TUN device passes it on.
const packetSize = 2048

// maxFlight is how many packets may be under way. 24 MB in 50 ms are more than two processors can send.
const maxFlight = 16384

// batch is how many packets are read from one place before another has its turn.
const batch = 64

// internet carries packets between the TUN devices of the sites. One thread of its own does all the work, so that a
// packet is late by the thread's waking only, whatever the test's goroutines do.
type internet struct {
	delay atomic.Int64  // one way
	loss  atomic.Uint64 // float64 bits of the probability
	wake  int           // eventfd
	done  chan struct{}

	mu      sync.Mutex
	ended   bool
	places  []*place
	routes  map[netip.Prefix]*place
	severed map[[2]*place]bool
	changed bool // places is not what the thread knows

	// The thread's own.
	random *rand.Rand
	known  []*place
	polled []unix.PollFd
	free   [][]byte
	flight []packet // in the order of their arrival
	begin  int      // flight[:begin] has arrived
}

// place is where a site is connected.
type place struct {
	fd  int
	cut atomic.Bool
}

type packet struct {
	due  time.Time
	to   *place
	data []byte
}

func newInternet() (*internet, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("natlab: eventfd: %w", err)
	}
	n := &internet{wake: wake, done: make(chan struct{}), routes: map[netip.Prefix]*place{}, severed: map[[2]*place]bool{}, changed: true, random: rand.New(rand.NewPCG(1, 2))}
	go n.run()
	return n, nil
}

// connect adds a site by its TUN device, which the internet closes in the end.
func (n *internet) connect(fd int) *place {
	p := &place{fd: fd}
	n.mu.Lock()
	n.places = append(n.places, p)
	n.changed = true
	n.mu.Unlock()
	n.rouse()
	return p
}

// route sends what goes to an address of the network to the place; a nil place ends that.
func (n *internet) route(network netip.Prefix, to *place) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if to == nil {
		delete(n.routes, network)
	} else {
		n.routes[network] = to
	}
}

// sever loses all packets from one place to the other, or no longer.
func (n *internet) sever(from, to *place, lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.severed[[2]*place{from, to}] = lost
}

// close ends the thread, waits for it and disconnects all sites.
func (n *internet) close() {
	n.mu.Lock()
	n.ended = true
	n.mu.Unlock()
	n.rouse()
	<-n.done
	for _, p := range n.places {
		_ = unix.Close(p.fd)
	}
	_ = unix.Close(n.wake)
}

func (n *internet) rouse() {
	_, _ = unix.Write(n.wake, binary.NativeEndian.AppendUint64(nil, 1))
}

func (n *internet) run() {
	// Without UnlockOSThread the thread, and with it its priority, ends with this goroutine.
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -15) // without it packets are late on a busy machine
	defer close(n.done)
	for n.refresh() {
		if _, err := unix.Ppoll(n.polled, n.patience(), nil); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		for i, p := range n.known {
			if n.polled[i+1].Revents&unix.POLLIN != 0 {
				n.take(p)
			}
		}
		n.deliver()
	}
}

// refresh learns of new places. It returns false in the end.
func (n *internet) refresh() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed {
		n.changed = false
		n.known = append(n.known[:0], n.places...)
		n.polled = append(n.polled[:0], unix.PollFd{Fd: int32(n.wake), Events: unix.POLLIN})
		for _, p := range n.known {
			n.polled = append(n.polled, unix.PollFd{Fd: int32(p.fd), Events: unix.POLLIN})
		}
		var count [8]byte
		_, _ = unix.Read(n.wake, count[:])
	}
	return !n.ended
}

// patience is how long nothing is due; nil is for ever.
func (n *internet) patience() *unix.Timespec {
	if n.begin == len(n.flight) {
		return nil
	}
	t := unix.NsecToTimespec(int64(max(0, time.Until(n.flight[n.begin].due))))
	return &t
}

// take reads what a site sends.
func (n *internet) take(from *place) {
	due := time.Now().Add(time.Duration(n.delay.Load()))
	loss := math.Float64frombits(n.loss.Load())
	for range batch {
		data := n.buffer()
		size, err := unix.Read(from.fd, data)
		if err != nil || size == 0 {
			n.free = append(n.free, data)
			return
		}
		to := n.way(from, data[:size])
		if to == nil || from.cut.Load() || len(n.flight)-n.begin >= maxFlight || loss > 0 && n.random.Float64() < loss {
			n.free = append(n.free, data)
			continue
		}
		n.flight = append(n.flight, packet{due: due, to: to, data: data[:size]})
	}
}

// way finds where a packet goes; nil is nowhere. Like a provider it passes on only what comes from the site's own addresses.
func (n *internet) way(from *place, data []byte) *place {
	source, destination, ok := ends(data)
	if !ok {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lookup(source) != from {
		return nil
	}
	to := n.lookup(destination)
	if n.severed[[2]*place{from, to}] {
		return nil
	}
	return to
}

// lookup needs mu.
func (n *internet) lookup(ip netip.Addr) *place {
	lengths := [2]int{32, 24}
	if ip.Is6() {
		lengths = [2]int{128, 32}
	}
	for _, bits := range lengths {
		if network, err := ip.Prefix(bits); err == nil && n.routes[network] != nil {
			return n.routes[network]
		}
	}
	return nil
}

// ends returns the addresses of an IP packet.
func ends(data []byte) (source, destination netip.Addr, ok bool) {
	switch {
	case len(data) >= 20 && data[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(data[12:16])), netip.AddrFrom4([4]byte(data[16:20])), true
	case len(data) >= 40 && data[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(data[8:24])), netip.AddrFrom16([16]byte(data[24:40])), true
	default:
		return netip.Addr{}, netip.Addr{}, false
	}
}

// deliver hands over what is due. What a site's device does not take is lost.
func (n *internet) deliver() {
	now := time.Now()
	for n.begin < len(n.flight) && !n.flight[n.begin].due.After(now) {
		p := &n.flight[n.begin]
		if !p.to.cut.Load() {
			_, _ = unix.Write(p.to.fd, p.data)
		}
		n.free = append(n.free, p.data[:packetSize])
		*p = packet{}
		n.begin++
	}
	switch {
	case n.begin == len(n.flight):
		n.flight, n.begin = n.flight[:0], 0
	case n.begin > maxFlight:
		n.flight, n.begin = append(n.flight[:0], n.flight[n.begin:]...), 0
	}
}

func (n *internet) buffer() []byte {
	if last := len(n.free) - 1; last >= 0 {
		data := n.free[last]
		n.free = n.free[:last]
		return data
	}
	return make([]byte, packetSize)
}
