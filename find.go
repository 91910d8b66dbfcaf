package p2p

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/discovery"
	"github.com/lynn9388/p2p/discovery/dht"
	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/internal/safetext"
	"github.com/lynn9388/p2p/protocols/neighbors"
)

const (
	// catalogTimeout bounds how long the neighbors are asked who offers a service. Those that hang must not keep a search
	// from the table.
	catalogTimeout = 2 * time.Second
	// catalogsAtOnce bounds the questions of one search that are under way.
	catalogsAtOnce = 16
)

// openTable opens the node's part of the distributed table, if it was asked for or goes with the profile.
func (r *running) openTable() (err error) {
	c := r.node.config
	if !c.dht && c.profile == profileLAN {
		return nil
	}
	r.table, err = dht.New(r.host, dht.Config{
		Network:  c.network,
		Client:   c.profile == profileWAN,
		Member:   grpcstream.TunnelProtocol(c.network),
		Lifetime: c.lifetime,
		Allow:    r.node.access.mayConnect,
		Parted:   r.keeper.Parted,
		InUse:    r.inUse,
		Origin:   func(p peer.ID) discovery.Origin { return r.keeper.From("dht", p) },
		Logger:   r.log,
	})
	return err
}

// announce tells the table what the node offers.
func (r *running) announce() {
	if r.table != nil {
		r.table.Announce(r.channel.Services(r.host.ID()))
	}
}

// find yields who is said to offer a service that nobody known offers: first those whom the neighbors know, then, unless
// one of them was met by now, those of the table, and nobody from whom the user parted. Nothing of it is proven before the
// peer itself has said so.
func (r *running) find(ctx context.Context, service string) iter.Seq2[peer.AddrInfo, error] {
	return func(yield func(peer.AddrInfo, error) bool) {
		seen := map[peer.ID]bool{r.host.ID(): true}
		for info := range r.askCatalogs(ctx, service) {
			if seen[info.ID] || r.keeper.Parted(info.ID) {
				continue
			}
			if seen[info.ID] = true; !yield(info, nil) {
				return
			}
		}
		if r.table == nil || r.offered(service) {
			return
		}
		for info, err := range r.table.Find(ctx, service) {
			if err == nil && r.keeper.Parted(info.ID) {
				continue
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// offered tells whether somebody who is connected offers a service.
func (r *running) offered(service string) bool {
	return len(r.channel.Instances(service)) > 0
}

// askCatalogs asks all neighbors at once who offers a service, and yields what they say as it comes.
func (r *running) askCatalogs(ctx context.Context, service string) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		asked := r.keeper.Neighbors()
		found := make(chan []peer.AddrInfo, len(asked)) // nobody waits for the reader
		slots := make(chan struct{}, catalogsAtOnce)
		for _, p := range asked {
			wg.Go(func() {
				slots <- struct{}{} // it is given back within the timeout
				defer func() { <-slots }()
				found <- r.askCatalog(ctx, p, service)
			})
		}
		for range asked {
			for _, info := range <-found {
				if !yield(info) {
					return
				}
			}
		}
	}
}

// askCatalog asks one neighbor. Addresses that it has no right to name are dropped.
func (r *running) askCatalog(ctx context.Context, p peer.ID, service string) (out []peer.AddrInfo) {
	from := r.keeper.From("neighbor", p) // before: it may be gone then
	err := r.ask(p, func(cc grpc.ClientConnInterface) error {
		found, err := neighbors.Find(ctx, cc, service, neighbors.MaxRecords)
		for _, n := range found {
			info := peer.AddrInfo{ID: n.Record.PeerID, Addrs: from.Accepted(n.Record.PeerID, n.Record.Addrs)}
			if r.node.access.mayConnect(info.ID) && (len(info.Addrs) > 0 || len(r.host.Network().ConnsToPeer(info.ID)) > 0) {
				out = append(out, info)
			}
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		r.log.Debug("cannot ask a neighbor for a service", "peer", p, "service", service, "err", safetext.Clean(err.Error()))
	}
	return out
}

// records are the neighbors' signed records for a neighbor that asks: those that are of use where it is.
func (n *Node) records(_ context.Context, most int, asker peer.ID) []neighbors.Signed {
	r, err := n.live()
	if err != nil {
		return nil
	}
	return signed(r.keeper.Records(most, asker, discovery.ScopeTo(r.host.Network(), asker)))
}

// catalog are the records of those who offer a service, the node itself among them, for a neighbor that asks.
func (n *Node) catalog(_ context.Context, service string, most int, asker peer.ID) []neighbors.Signed {
	r, err := n.live()
	if err != nil {
		return nil
	}
	var envelopes [][]byte
	var offer []peer.ID
	for _, i := range r.channel.Instances(service) {
		if offer = append(offer, i.Peer); i.Self {
			envelopes = r.ownRecord()
		}
	}
	return signed(append(envelopes, r.keeper.RecordsOf(offer, most, asker, discovery.ScopeTo(r.host.Network(), asker))...))
}

// ownRecord is the node's own signed record, if there is one.
func (r *running) ownRecord() [][]byte {
	book, ok := peerstore.GetCertifiedAddrBook(r.host.Peerstore())
	if !ok {
		return nil
	}
	env := book.GetPeerRecord(r.host.ID())
	if env == nil {
		return nil
	}
	b, err := env.Marshal()
	if err != nil {
		return nil
	}
	return [][]byte{b}
}

func signed(envelopes [][]byte) (out []neighbors.Signed) {
	for _, e := range envelopes {
		out = append(out, neighbors.Signed{Envelope: e})
	}
	return out
}
