package host

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2/pb"
	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// probeTimeout bounds a probe: the relay dials for 10 s at most.
	probeTimeout = 15 * time.Second

	// probeGrace is how long a handshake that the relay says it began may take to show here.
	probeGrace = time.Second

	// maxProbeMessage bounds what a relay answers; maxProbeData how much it may ask for, and probeChunk is how much of it
	// goes into one message. All are of the AutoNAT v2 specification.
	maxProbeMessage = 8192
	maxProbeData    = 100_000
	probeChunk      = 4000
)

// ErrProbeRefused says that a relay did not probe: it is asked too often, or it cannot dial such an address.
var ErrProbeRefused = errors.New("host: the relay refused to probe")

// Probe asks a relay that h is connected to, to dial the address a of h from a port that it uses for nothing else, and
// tells whether that got through to h. It takes about three round trips when it did, up to 10 s when it did not.
//
// A relay whose own packets the router lets in, because h has sent some to the relay's IP address, proves little: such a
// router keeps others out. h must have been built by [New] with [Config.WAN], the relay with [Config.Relay]; the relay
// refuses private addresses, and more than a few requests a minute, with [ErrProbeRefused].
//
// This is AutoNAT v2 (https://github.com/libp2p/specs/blob/master/autonat/autonat-v2.md) but for how the dial shows.
// libp2p dials back under an identity of the moment, which an allow list keeps out. A relay of ours does so under its
// own, and h takes the proof of that identity for the answer, and lets the connection no further: it would stand beside
// the one in use.
func Probe(ctx context.Context, h corehost.Host, relay peer.ID, a ma.Multiaddr) (bool, error) {
	n, ok := h.(*node)
	if !ok || n.door == nil {
		return false, fmt.Errorf("host: probe %s: the host was not built for it: set WAN", a)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	reached, stop := n.probes.expect(relay, a)
	defer stop()
	status, err := n.askProbe(ctx, relay, a)
	if err != nil {
		return false, fmt.Errorf("host: probe %s through %s: %w", a, relay, err)
	}
	wait := probeGrace
	if status == pb.DialStatus_E_DIAL_ERROR {
		wait = 0
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-reached:
		return true, nil
	default:
	}
	select {
	case <-reached:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, fmt.Errorf("host: probe %s through %s: %w", a, relay, ctx.Err())
	}
}

// askProbe sends the request and returns what the relay says that its dial met.
func (n *node) askProbe(ctx context.Context, relay peer.ID, a ma.Multiaddr) (pb.DialStatus, error) {
	s, err := n.NewStream(network.WithNoDial(ctx, "probe"), relay, autonatv2.DialProtocol)
	if err != nil {
		return 0, err
	}
	defer func() { _ = s.Reset() }()
	if err := s.Scope().SetService(autonatv2.ServiceName); err != nil {
		return 0, err
	}
	if err := s.Scope().ReserveMemory(maxProbeMessage, network.ReservationPriorityAlways); err != nil {
		return 0, err
	}
	defer s.Scope().ReleaseMemory(maxProbeMessage)
	if err := s.SetDeadline(time.Now().Add(probeTimeout)); err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	w, r := pbio.NewDelimitedWriter(s), pbio.NewDelimitedReader(s, maxProbeMessage)
	request := &pb.DialRequest{Addrs: [][]byte{a.Bytes()}, Nonce: nonce()}
	if err := w.WriteMsg(&pb.Message{Msg: &pb.Message_DialRequest{DialRequest: request}}); err != nil {
		return 0, err
	}
	var msg pb.Message
	if err := r.ReadMsg(&msg); err != nil {
		return 0, err
	}
	if want := msg.GetDialDataRequest(); want != nil {
		if err := sendProbeData(w, want.GetNumBytes()); err != nil {
			return 0, err
		}
		if err := r.ReadMsg(&msg); err != nil {
			return 0, err
		}
	}
	answer := msg.GetDialResponse()
	switch {
	case answer == nil:
		return 0, errors.New("the relay answered with another message than a probe's")
	case answer.GetStatus() != pb.DialResponse_OK:
		return 0, fmt.Errorf("%w: %s", ErrProbeRefused, answer.GetStatus())
	default:
		return answer.GetDialStatus(), nil
	}
}

// sendProbeData sends what a relay wants before it dials another IP address than the one it is asked from, so that
// making it dial a third party costs as much as dialing.
func sendProbeData(w pbio.Writer, size uint64) error {
	if size > maxProbeData {
		return fmt.Errorf("the relay wants %d bytes first, more than %d", size, maxProbeData)
	}
	chunk := make([]byte, probeChunk)
	for left := int(size); left > 0; left -= len(chunk) {
		data := &pb.DialDataResponse{Data: chunk}
		if err := w.WriteMsg(&pb.Message{Msg: &pb.Message_DialDataResponse{DialDataResponse: data}}); err != nil {
			return err
		}
	}
	return nil
}

// nonce returns a random number, which libp2p's client would recognize the dial by.
func nonce() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return binary.BigEndian.Uint64(b[:])
}

// probes are the dials that a host has asked for and that may arrive.
type probes struct {
	mu      sync.Mutex
	pending []*pendingProbe
}

type pendingProbe struct {
	relay   peer.ID
	at      ma.Multiaddr
	reached chan struct{} // closed when the dial has arrived
	once    sync.Once
}

// expect begins to wait for a dial. The channel is closed when it arrives; stop ends the waiting.
func (p *probes) expect(relay peer.ID, at ma.Multiaddr) (reached <-chan struct{}, stop func()) {
	one := &pendingProbe{relay: relay, at: at, reached: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending = append(p.pending, one)
	return one.reached, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.pending = slices.DeleteFunc(p.pending, func(o *pendingProbe) bool { return o == one })
	}
}

// arrived tells whether an incoming connection of a peer that has proved its ID is a dial that was asked for. The
// addresses differ when a router is in between; what they are made of does not.
func (p *probes) arrived(from peer.ID, local ma.Multiaddr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := false
	for _, one := range p.pending {
		if one.relay == from && sameKind(one.at, local) {
			one.once.Do(func() { close(one.reached) })
			found = true
		}
	}
	return found
}

// sameKind tells whether two addresses are of the same transport over the same version of IP. A name stands for either.
func sameKind(named, local ma.Multiaddr) bool {
	a, b := named.Protocols(), local.Protocols()
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		name := i == 0 && (a[i].Code == ma.P_DNS || a[i].Code == ma.P_DNS4 && b[i].Code == ma.P_IP4 ||
			a[i].Code == ma.P_DNS6 && b[i].Code == ma.P_IP6)
		if !name && a[i].Code != b[i].Code {
			return false
		}
	}
	return true
}
