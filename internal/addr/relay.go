package addr

import (
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Relayed tells whether a leads through a relay, well formed or not.
func Relayed(a ma.Multiaddr) bool {
	if a == nil {
		return false
	}
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// SplitRelay takes an address that leads through one relay apart: who the relay is, and its own address without
// /p2p/ID, which is nil where the address leaves it to the dialer to know it. A peer ID at the end, of whom is reached
// like this, is ignored. It returns false for every other address, those through several relays and those that name a
// relay by its address alone among them.
func SplitRelay(a ma.Multiaddr) (relay peer.ID, at ma.Multiaddr, ok bool) {
	i := 0
	for i < len(a) && a[i].Protocol().Code != ma.P_CIRCUIT {
		i++
	}
	switch rest := a[i:]; {
	case i == 0, len(rest) == 0, len(rest) > 2, len(rest) == 2 && rest[1].Protocol().Code != ma.P_P2P:
		return "", nil, false
	}
	at, relay = peer.SplitAddr(a[:i])
	if relay.Validate() != nil {
		return "", nil, false
	}
	for _, c := range at {
		if c.Protocol().Code == ma.P_P2P {
			return "", nil, false
		}
	}
	return relay, at, true
}

// ThroughRelay returns the address of whoever a relay reaches, with the relay at an address, or without one where at is
// nil: then it is dialed at the addresses that are known of it.
func ThroughRelay(relay peer.ID, at ma.Multiaddr) (ma.Multiaddr, error) {
	id, err := ma.NewComponent("p2p", relay.String())
	if err != nil {
		return nil, err
	}
	circuit, err := ma.NewComponent("p2p-circuit", "")
	if err != nil {
		return nil, err
	}
	out := make(ma.Multiaddr, 0, len(at)+2)
	return append(append(out, at...), *id, *circuit), nil
}
