// Package hosttest gives tests libp2p hosts on an in-memory network: nothing touches a socket, and inside a
// testing/synctest bubble time is virtual.
package hosttest

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	corehost "github.com/libp2p/go-libp2p/core/host"
)

// Network is a network of simulated hosts. Its methods are safe for concurrent use.
type Network struct{ tb testing.TB }

// New returns a network without latency that is closed when the test ends. Inside a synctest bubble the test calls
// [Network.Close] before the bubble ends.
func New(tb testing.TB) *Network { return &Network{tb: tb} }

// Host returns a new host that listens on a simulated address of its own. It fails the test when it cannot.
func (n *Network) Host(opts ...libp2p.Option) corehost.Host { return nil }

// SetLatency sets the one-way delay between a and b.
func (n *Network) SetLatency(a, b corehost.Host, d time.Duration) {}

// Cut drops every packet between a and b until [Network.Heal].
func (n *Network) Cut(a, b corehost.Host) {}

// Heal ends a [Network.Cut].
func (n *Network) Heal(a, b corehost.Host) {}

// Partition drops every packet between hosts of different groups, in place of an earlier partition. A host that is in
// no group reaches all.
func (n *Network) Partition(groups ...[]corehost.Host) {}

// HealAll ends every cut and partition.
func (n *Network) HealAll() {}

// Close closes the hosts and the network. It may be called more than once.
func (n *Network) Close() {}
