package mdns

import (
	"context"

	corehost "github.com/libp2p/go-libp2p/core/host"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
)

// port is the port of multicast DNS.
const port = 5353

// A conn sends and receives the packets of one link.
type conn interface {
	// read waits for a packet that came to the group over this link; after close it returns net.ErrClosed.
	read(b []byte) (n int, err error)
	// write sends a packet to the group over this link. It never waits for long.
	write(b []byte) error
	close() error
}

// A network is where a source gets its links from: the machine, or a test's.
type network interface {
	watch(ctx context.Context, changed func([]host.Interface)) error
	addrs(h corehost.Host) []ma.Multiaddr
	open(id linkID, iface host.Interface) (conn, error)
}

// machine is the network of this machine.
type machine struct{}

func (machine) watch(ctx context.Context, changed func([]host.Interface)) error {
	return host.WatchInterfaces(ctx, changed)
}

func (machine) addrs(h corehost.Host) []ma.Multiaddr { return host.Addrs(h) }

func (machine) open(id linkID, iface host.Interface) (conn, error) { return openSocket(id, iface) }
