//go:build linux

package natlab

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/netns"
)

// A Family says which versions of IP a lab has.
type Family int

// The families.
const (
	IPv4 Family = iota
	IPv6
	Both
)

// Config describes the Internet of a lab. The zero value is IPv4 without delay and loss.
type Config struct {
	// Delay is how long a packet takes from one site to another, one way.
	Delay time.Duration
	// Loss is the probability, from 0 to 1, that a packet between two sites is lost.
	Loss float64
	// Family says which versions of IP there are.
	Family Family
}

// A Lab is an Internet and its sites. It lives as long as its test. Its methods and those of its routers may be called
// concurrently; they fail the test when the system refuses, as those of package netns do.
type Lab struct {
	tb       testing.TB
	net      *netns.Lab
	family   Family
	internet *internet

	mu      sync.Mutex
	sites   int
	numbers map[int]int // the last network, by site
}

// maxSites is how many sites a lab may have: each has a number in one byte of its addresses.
const maxSites = 250

// New returns a lab without sites, or skips the test, with the reason, where none can be built. It is removed by
// tb.Cleanup.
func New(tb testing.TB, cfg Config) *Lab {
	tb.Helper()
	l := &Lab{tb: tb, net: netns.New(tb), family: cfg.Family, numbers: map[int]int{}}
	if err := usable(); err != nil {
		tb.Skipf("no NAT lab: %v", err)
	}
	internet, err := newInternet()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(internet.close)
	l.internet = internet
	l.SetDelay(cfg.Delay)
	l.internet.loss.Store(math.Float64bits(cfg.Loss))
	return l
}

// usable tells what a NAT lab lacks here, beyond what namespaces need.
func usable() error {
	if _, err := exec.LookPath("nft"); err != nil {
		return errors.New("the command nft (nftables) is missing")
	}
	f, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// SetDelay changes how long packets take that are sent from now on. A packet does not overtake those before it.
func (l *Lab) SetDelay(d time.Duration) { l.internet.delay.Store(int64(d)) }

// Public adds a host with a public address that everybody reaches, on a site of its own. Its interface is eth0.
func (l *Lab) Public() *netns.Host {
	l.tb.Helper()
	return l.Router(None).Host()
}

// number gives out the numbers of sites.
func (l *Lab) number() int {
	l.tb.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sites++
	if l.sites > maxSites {
		l.tb.Fatalf("natlab: more than %d sites", maxSites)
	}
	return l.sites
}

// network gives out the numbers of the networks of a site, from 1.
func (l *Lab) network(site int) int {
	l.tb.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.numbers[site]++
	if l.numbers[site] > maxSites {
		l.tb.Fatalf("natlab: more than %d networks in a site", maxSites)
	}
	return l.numbers[site]
}

func (f Family) has4() bool { return f != IPv6 }

func (f Family) has6() bool { return f != IPv4 }

// must fails the test.
func (l *Lab) must(err error, what string, args ...any) {
	l.tb.Helper()
	if err != nil {
		l.tb.Fatalf("natlab: %s: %v", fmt.Sprintf(what, args...), err)
	}
}
