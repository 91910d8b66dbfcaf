package p2p

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/reach"
	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/protocols/pathinfo"
)

// onlooker tells peers how this node sees them.
type onlooker struct{ node *Node }

// Look implements [pathinfo.Looker].
func (o onlooker) Look(ctx context.Context, asker peer.ID, dial bool) pathinfo.View {
	r, err := o.node.live()
	if err != nil {
		return pathinfo.View{}
	}
	var v pathinfo.View
	if at, ok := grpcstream.PeerFromContext(ctx); ok {
		v.Path, v.Transport = string(at.Path), at.Transport
		if at.Relay != "" {
			v.Relay = at.Relay.String()
		}
		if at.Addr != nil {
			v.SeenAt = at.Addr.String()
		}
	}
	if r.reach != nil {
		v.NotDirect = r.reach.WhyRelayed(asker)
		v.Reachability, v.UDPMapping, v.TCPMapping = kinds(r.reach.Status())
	}
	if dial {
		v.Dialed = r.dialBack(ctx, asker)
	}
	return v
}

// kinds are those of a status that are known, in words.
func kinds(st reach.Status) (reachability, udp, tcp string) {
	switch st.Reachability {
	case network.ReachabilityPublic:
		reachability = "public"
	case network.ReachabilityPrivate:
		reachability = "private"
	case network.ReachabilityUnknown:
	}
	if st.UDP != reach.MappingUnknown {
		udp = st.UDP.String()
	}
	if st.TCP != reach.MappingUnknown {
		tcp = st.TCP.String()
	}
	return reachability, udp, tcp
}

// dialBack dials the addresses of a peer at which this node would dial it anyhow, and tells what each met.
func (r *running) dialBack(ctx context.Context, p peer.ID) []pathinfo.Met {
	known, _ := r.keeper.Peer(p)
	var own []ma.Multiaddr
	for _, a := range known.Addrs {
		if !addr.Relayed(a) && len(own) < pathinfo.MaxDialed {
			own = append(own, a)
		}
	}
	out := make([]pathinfo.Met, len(own))
	var wg sync.WaitGroup
	for i, a := range own {
		wg.Go(func() {
			begin := time.Now()
			id, err := host.Identify(ctx, r.host, a)
			out[i] = pathinfo.Met{Addr: a.String(), Took: time.Since(begin)}
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				out[i].Err = "no answer"
			case err != nil:
				out[i].Err = dialProblem(err)
			case id != p:
				out[i].Err = fmt.Sprintf("another peer answers: %s", id)
			}
		})
	}
	wg.Wait()
	return out
}

// dialProblem says what a dial met, without this node's own addresses: the peer is told of it.
func dialProblem(err error) string {
	if sys, ok := errors.AsType[*os.SyscallError](err); ok {
		return sys.Err.Error()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err.Error()
	}
	return err.Error()
}
