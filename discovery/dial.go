package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
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

// refusedError tells that at all addresses a machine answers and no program listens.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

// dial connects to p at addrs and nowhere else. Its errors are one line, and clean. Unless all is set it does without
// QUIC on this machine or link where there is TCP: a dead port refuses TCP at once, while QUIC would wait in silence for
// its whole time, and each transport that is tried costs both ends a handshake.
func (k *Keeper) dial(ctx context.Context, p peer.ID, addrs []ma.Multiaddr, timeout time.Duration, all bool) error {
	n := k.h.Network()
	// libp2p's own backoff lasts seconds after one failure; the keeper has its own.
	if s, ok := n.(interface{ Backoff() *swarm.DialBackoff }); ok {
		s.Backoff().Clear(p)
		for _, a := range addrs {
			if relay, _, ok := addr.SplitRelay(a); ok {
				s.Backoff().Clear(relay)
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	first := addrs
	if !all {
		first = beforeQUIC(addrs)
	}
	k.aim(p, first)
	_, err := n.DialPeer(network.WithDialPeerTimeout(ctx, 2*timeout), p) // ctx is the one that counts
	k.aimedAt(p)
	return k.dialResult(ctx, p, timeout, err)
}

// approach dials a peer directly that is connected through a relay.
func (k *Keeper) approach(ctx context.Context, p peer.ID, addrs []ma.Multiaddr, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(network.WithForceDirectDial(ctx, "found nearby"), timeout)
	defer cancel()
	k.h.Peerstore().AddAddrs(p, addrs, peerstore.TempAddrTTL)
	_, err := k.h.Network().DialPeer(ctx, p)
	k.log.Debug("dialed directly", "peer", p, "err", err)
}

// aim makes addrs what libp2p dials for a peer that is not connected, until aimedAt.
func (k *Keeper) aim(p peer.ID, addrs []ma.Multiaddr) {
	k.mu.Lock()
	k.aimed[p]++
	k.mu.Unlock()
	if len(k.h.Network().ConnsToPeer(p)) == 0 {
		k.setAddrs(p, addrs, false)
	}
}

// aimedAt ends what aim began: the peerstore has what is known of p, once no other dial of p is under way.
func (k *Keeper) aimedAt(p peer.ID) {
	k.mu.Lock()
	if k.aimed[p]--; k.aimed[p] == 0 {
		delete(k.aimed, p)
	}
	k.mu.Unlock()
	k.storeAddrs(p)
}

func (k *Keeper) dialResult(ctx context.Context, p peer.ID, timeout time.Duration, err error) error {
	switch {
	case err == nil && len(k.h.Network().ConnsToPeer(p)) == 0:
		return errors.New("the connection was closed at once")
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return fmt.Errorf("no answer within %v", timeout)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return plain(p, err)
}

// beforeQUIC returns addrs without the QUIC addresses of this machine or link where there is a TCP address too.
func beforeQUIC(addrs []ma.Multiaddr) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range addrs {
		ip, _ := addr.IP(a)
		if !addr.Relayed(a) && addr.IPScope(ip) < Public && has(a, ma.P_UDP) && slices.ContainsFunc(addrs, func(b ma.Multiaddr) bool {
			other, _ := addr.IP(b)
			return !addr.Relayed(b) && other == ip && has(b, ma.P_TCP)
		}) {
			continue
		}
		out = append(out, a)
	}
	return out
}

func has(a ma.Multiaddr, code int) bool {
	_, err := a.ValueForProtocol(code)
	return err == nil
}

// plain says what a dial error of libp2p says in one line.
func plain(p peer.ID, err error) error {
	de := (*swarm.DialError)(nil)
	if !errors.As(err, &de) || len(de.DialErrors) == 0 {
		return errors.New(oneLine(err))
	}
	wrong := &wrongPeerError{want: p}
	var texts []string
	refused := true
	for _, te := range de.DialErrors {
		if mismatch, ok := errors.AsType[sec.ErrPeerIDMismatch](te.Cause); ok {
			wrong.got = mismatch.Actual
			wrong.addrs = append(wrong.addrs, te.Address)
			continue
		}
		refused = refused && errors.Is(te.Cause, syscall.ECONNREFUSED)
		text := oneLine(te.Cause)
		if i := strings.LastIndex(text, ": connect: "); i >= 0 {
			text = text[i+len(": connect: "):] // without the addresses once more
		}
		texts = append(texts, safetext.Clean(te.Address.String())+": "+text)
	}
	if len(wrong.addrs) > 0 {
		return wrong
	}
	if refused {
		return &refusedError{strings.Join(texts, "; ")}
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
