package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/safetext"
)

// wrongPeerError tells that somebody else answers at a peer's addresses.
type wrongPeerError struct {
	want, got peer.ID
	addrs     []ma.Multiaddr
}

func (e *wrongPeerError) Error() string {
	return fmt.Sprintf("%s answers at %s, not %s", e.got, places(e.addrs), e.want)
}

// dial connects to p at addrs and nowhere else. Its errors are one line, and clean.
func (k *Keeper) dial(ctx context.Context, p peer.ID, addrs []ma.Multiaddr, timeout time.Duration) error {
	n := k.h.Network()
	if len(n.ConnsToPeer(p)) == 0 {
		k.setAddrs(p, addrs, false)
	}
	// libp2p's own backoff lasts seconds after one failure; the keeper has its own.
	if s, ok := n.(interface{ Backoff() *swarm.DialBackoff }); ok {
		s.Backoff().Clear(p)
	}
	dctx, cancel := context.WithTimeout(network.WithDialPeerTimeout(ctx, timeout), timeout)
	defer cancel()
	_, err := n.DialPeer(dctx, p)
	switch {
	case err == nil && len(n.ConnsToPeer(p)) == 0:
		return errors.New("the connection was closed at once")
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case dctx.Err() != nil:
		return fmt.Errorf("no answer within %v", timeout)
	}
	return plain(p, err)
}

// plain says what a dial error of libp2p says in one line.
func plain(p peer.ID, err error) error {
	de := (*swarm.DialError)(nil)
	if !errors.As(err, &de) || len(de.DialErrors) == 0 {
		return errors.New(oneLine(err))
	}
	wrong := &wrongPeerError{want: p}
	var texts []string
	for _, te := range de.DialErrors {
		var mismatch sec.ErrPeerIDMismatch
		if errors.As(te.Cause, &mismatch) {
			wrong.got = mismatch.Actual
			wrong.addrs = append(wrong.addrs, te.Address)
			continue
		}
		text := oneLine(te.Cause)
		if i := strings.LastIndex(text, ": connect: "); i >= 0 {
			text = text[i+len(": connect: "):] // without the addresses once more
		}
		texts = append(texts, safetext.Clean(te.Address.String())+": "+text)
	}
	if len(wrong.addrs) > 0 {
		return wrong
	}
	return errors.New(strings.Join(texts, "; "))
}

func oneLine(err error) string {
	return safetext.Clean(strings.Join(strings.Fields(err.Error()), " "))
}

// places returns "host:port" of addresses, each once.
func places(addrs []ma.Multiaddr) string {
	var out []string
	for _, a := range addrs {
		hp, ok := addr.HostPort(a)
		if !ok {
			hp = safetext.Clean(a.String())
		}
		if !slices.Contains(out, hp) {
			out = append(out, hp)
		}
	}
	return strings.Join(out, ", ")
}

// ports returns the ports of addresses, each once.
func ports(addrs []ma.Multiaddr) string {
	var out []string
	for _, a := range addrs {
		hp, ok := addr.HostPort(a)
		if !ok {
			continue
		}
		if port := hp[strings.LastIndexByte(hp, ':')+1:]; !slices.Contains(out, port) {
			out = append(out, port)
		}
	}
	return strings.Join(out, ", ")
}
