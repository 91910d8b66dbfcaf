package portmap

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/libp2p/go-netroute"

	"github.com/lynn9388/p2p/internal/addr"
)

// somewhere is an address of documentation, RFC 5737: the way there is the way to the Internet. Nothing is sent.
func somewhere() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, 1}) }

// locate returns this machine's own IPv4 address and that of its gateway, when both are private: then the gateway may be
// a router that maps ports. Otherwise it returns the zero place, and an error when there is no way to the Internet.
func locate() (place, error) {
	table, err := netroute.New()
	if err != nil {
		return place{}, err
	}
	_, gateway, inside, err := table.Route(net.IP(somewhere().AsSlice()))
	if err != nil {
		return place{}, err
	}
	var at place
	at.inside, _ = netip.AddrFromSlice(inside)
	at.gateway, _ = netip.AddrFromSlice(gateway)
	at.inside, at.gateway = at.inside.Unmap(), at.gateway.Unmap()
	if addr.IPScope(at.inside) != addr.Private || addr.IPScope(at.gateway) != addr.Private {
		return place{}, nil
	}
	return at, nil
}

// find looks for the router at a place by all protocols at once, and returns the first that answers.
func find(ctx context.Context, at place) (router, error) {
	return findAt(ctx, at, netip.AddrPortFrom(at.gateway, pmpPort), searchGroup())
}

func findAt(ctx context.Context, at place, gateway, group netip.AddrPort) (router, error) {
	ctx, cancel := context.WithCancel(ctx)
	found := make(chan router, 2)
	failed := make(chan error, 2)
	var wg sync.WaitGroup
	for _, try := range []func() (router, error){
		func() (router, error) {
			p := pmp{gateway}
			_, err := p.external(ctx)
			return p, err
		},
		func() (router, error) {
			location, err := search(ctx, group, at.inside, at.gateway)
			if err != nil {
				return nil, err
			}
			return describe(ctx, location, at.inside)
		},
	} {
		wg.Go(func() {
			if r, err := try(); err != nil {
				failed <- err
			} else {
				found <- r
			}
		})
	}
	defer wg.Wait()
	defer cancel()
	var errs []error
	for range cap(failed) {
		select {
		case r := <-found:
			return r, nil
		case err := <-failed:
			errs = append(errs, err)
		}
	}
	return nil, errors.Join(errs...)
}
