package host

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// Interface is a network interface and its addresses at one moment.
type Interface struct {
	Index int
	Name  string
	Flags net.Flags
	Addrs []netip.Prefix
}

// Interfaces returns the machine's interfaces that are up, by index.
func Interfaces() ([]Interface, error) { return nil, errors.New("host: not built yet") }

// WatchInterfaces calls changed with the interfaces at once and again whenever they have changed, until ctx ends.
// It looks each second, calls from its own goroutine (the caller's), and returns ctx's error.
func WatchInterfaces(ctx context.Context, changed func([]Interface)) error { return errors.New("host: not built yet") }
