package control

import (
	"fmt"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/safetext"
)

// target is a peer that the user named.
type target struct {
	id   peer.ID
	dial string // what the node is told: an ID, with an address if there was one
}

// resolve finds the peer that the user means. A name counts only if it was pinned: what a peer calls itself says nothing
// about who it is. An unknown name is no NotFound: through a forwarded call that would read as an answer of the peer.
func (s *Server) resolve(name string) (target, error) {
	return resolve(name, s.cfg.Node.Pinned, s.cfg.Node.Peers)
}

func resolve(name string, pinned func(string) (peer.ID, bool), peers func() []p2p.PeerInfo) (target, error) {
	info, err := addr.ParsePeer(name)
	if err == nil {
		return target{id: info.ID, dial: name}, nil
	}
	if looksLikeAddress(name) {
		return target{}, status.Error(codes.InvalidArgument, err.Error())
	}
	if id, ok := pinned(name); ok {
		return target{id: id, dial: id.String()}, nil
	}
	return target{}, status.Error(codes.FailedPrecondition, unknownName(name, peers()))
}

// CheckTarget returns an error for what can be neither a peer's address or ID nor a name.
func CheckTarget(name string) error {
	_, err := addr.ParsePeer(name)
	if err == nil || !looksLikeAddress(name) {
		return nil
	}
	return err
}

// looksLikeAddress tells whether somebody who wrote s did not mean a name.
func looksLikeAddress(s string) bool {
	return s == "" || strings.ContainsAny(s, "/@:") || strings.HasPrefix(s, "12D3Koo") || strings.HasPrefix(s, "Qm") && len(s) > 40
}

// unknownName says how to go on with a name that was not pinned.
func unknownName(name string, peers []p2p.PeerInfo) string {
	name = safetext.Clean(name)
	var claim []string
	for _, p := range peers {
		if p.Name == name {
			claim = append(claim, p.ID.String())
		}
	}
	slices.Sort(claim)
	switch len(claim) {
	case 0:
		return fmt.Sprintf("%q is neither a peer ID, ID@host:port or multiaddr, nor a pinned name: \"p2p peers ls\" shows the peers, \"p2p peers pin ID %s\" gives one this name", name, name)
	case 1:
		return fmt.Sprintf("%q is only what %s calls itself, and any node can call itself so: if that is the right peer, run: p2p peers pin %s %s", name, claim[0], claim[0], name)
	default:
		return fmt.Sprintf("%q is only what %d peers call themselves (%s): pin the name to the right one: p2p peers pin ID %s", name, len(claim), strings.Join(claim[:min(len(claim), 5)], ", "), name)
	}
}
