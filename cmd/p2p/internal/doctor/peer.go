package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/safetext"
	"github.com/lynn9388/p2p/protocols/nodeinfo"
	"github.com/lynn9388/p2p/protocols/pathinfo"
)

const (
	nameCalls     = "calls"
	namePath      = "path"
	nameFromHere  = "from here"
	nameFromThere = "from there"
)

// ExaminePeer looks at what is between the node and a peer, from both ends. target is how the peer is called.
func (s Subject) ExaminePeer(ctx context.Context, id peer.ID, target string) []Check {
	rtt, err := nodeinfo.Ping(ctx, s.Node.Peer(target))
	known := s.info(id)
	out := []Check{calls(rtt, err, known)}
	here := knock(ctx, s.Node.Host(), id.String(), peer.AddrInfo{ID: id, Addrs: direct(known.Addrs)})
	out = append(out, fromHere(here))
	if err != nil {
		return append(out, unknown(nameFromThere, "it cannot be asked"))
	}
	view, ahead, err := pathinfo.Look(ctx, s.Node.Peer(target), true)
	if err != nil {
		out = append(out, unknown(nameFromThere, "it does not tell: %s", said(err)))
	} else {
		out = append(out, fromThere(view))
		if !view.Time.IsZero() {
			out = append(out, Clock(time.Now(), []Offset{{id.String(), ahead}}))
		}
	}
	return append(out, path(s.info(id), view))
}

// info is what the node knows of a peer.
func (s Subject) info(id peer.ID) p2p.PeerInfo {
	for _, p := range s.Node.Peers() {
		if p.ID == id {
			return p
		}
	}
	return p2p.PeerInfo{ID: id}
}

// direct are the addresses that lead through no relay.
func direct(addrs []ma.Multiaddr) []ma.Multiaddr {
	return slices.DeleteFunc(slices.Clone(addrs), addr.Relayed)
}

func calls(rtt time.Duration, err error, p p2p.PeerInfo) Check {
	if err == nil {
		return pass(nameCalls, "it answers, after %v", rtt.Round(10*time.Microsecond))
	}
	c := fail(nameCalls, "it does not answer: %s", said(err))
	switch {
	case status.Code(err) == codes.PermissionDenied:
		return c.todo("put this node's ID on its allow list")
	case p.LastError != "":
		return c.todo("the last dial to it failed: %s", p.LastError)
	}
	return c.todo("see that it runs, in the same network, and that both are joined to the same relay or each is on the other's allow list")
}

func fromHere(d Door) Check {
	if len(d.Knocks) == 0 {
		return unknown(nameFromHere, "no address of it is known but through a relay")
	}
	text, open := dials(len(d.Knocks), func(i int) (string, string) {
		k := d.Knocks[i]
		if k.Answered == d.ID {
			return k.Addr.String(), ""
		}
		if k.Answered != "" {
			return k.Addr.String(), "another peer answers, " + k.Answered.String()
		}
		return k.Addr.String(), reason(k.Err)
	})
	if open {
		return pass(nameFromHere, "%s", text)
	}
	return warn(nameFromHere, "nobody answers at its addresses: %s", text).
		todo("a NAT or firewall in front of it keeps unasked packets out, which is usual; to let them in, forward or open its port, TCP and UDP")
}

func fromThere(v pathinfo.View) Check {
	seen := "it sees this node at " + safetext.Clean(v.SeenAt)
	switch {
	case v.Relay != "":
		seen = "it sees this node through the relay " + safetext.Clean(v.Relay)
	case v.SeenAt == "":
		seen = "it does not say where it sees this node"
	}
	if len(v.Dialed) == 0 {
		return unknown(nameFromThere, "%s, and knows no address to dial", seen)
	}
	text, open := dials(len(v.Dialed), func(i int) (string, string) {
		return safetext.Clean(v.Dialed[i].Addr), safetext.Clean(v.Dialed[i].Err)
	})
	if open {
		return pass(nameFromThere, "%s; it gets to %s", seen, text)
	}
	return warn(nameFromThere, "%s, and does not get to this node's addresses: %s", seen, text).
		todo("a NAT or firewall in front of this node keeps unasked packets out, which is usual; to let them in, forward or open its port, TCP and UDP")
}

// dials lists what each address met, those first at which the right one answered, and tells whether there is one.
func dials(n int, met func(i int) (at, problem string)) (text string, open bool) {
	var well, ill []string
	for i := range n {
		at, problem := met(i)
		if a, err := ma.NewMultiaddr(at); err == nil {
			if hp, ok := addr.HostPort(a); ok {
				at = hp + " over " + Knock{Addr: a}.over()
			}
		}
		if problem == "" {
			well = append(well, at)
			continue
		}
		ill = append(ill, fmt.Sprintf("%s (%s)", at, problem))
	}
	return strings.Join(append(well, ill...), ", "), len(well) > 0
}

func path(p p2p.PeerInfo, v pathinfo.View) Check {
	switch p.Path {
	case "direct":
		return pass(namePath, "direct, over %s, since %s", p.Transport, p.PathSince.Local().Format(time.DateTime))
	case "relay":
		text := fmt.Sprintf("through the relay %s", p.Relay)
		if p.NotDirect != "" {
			text += ": " + p.NotDirect
		}
		if there := safetext.Clean(v.UDPMapping); there != "" {
			text += "; the NAT at its end, by what it says: " + there
		}
		return warn(namePath, "%s", text).todo("nothing has to be done: calls work; for a direct one, one of the two ends has to be reachable: a mapped or forwarded port, or a NAT that keeps ports")
	default:
		return unknown(namePath, "there is no connection")
	}
}

// said is the text of an error of a call.
func said(err error) string {
	if st, ok := status.FromError(err); ok {
		return safetext.Clean(st.Message())
	}
	return safetext.Clean(err.Error())
}
