package dht

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	kbucket "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

const (
	// announceAtOnce bounds the services that are announced at the same time.
	announceAtOnce = 4
	// A round of announcing is begun at most each roundEvery, in a burst of roundBurst.
	roundEvery = 5 * time.Second
	roundBurst = 3
	// settle is how long a round waits for more changes to come.
	settle = 100 * time.Millisecond
	// growthFirst is how soon the node looks itself up, and announces anew, after the table grew: the nodes that keep a
	// record may be others now. It doubles each time.
	growthFirst = time.Second
	// The table is refreshed after refreshFirst and then each refreshEvery: peers that do not answer go, and buckets are
	// filled.
	refreshFirst = time.Minute
	refreshEvery = 10 * time.Minute
	// nearby is how many nodes that are at hand get a record at once, before those are looked up whose task it is.
	nearby = 3
)

// Announce sets the services that are announced from now on, while [DHT.Run] runs: those over [MaxServices] are not. A
// service that is no longer among them is forgotten by the others within the lifetime of its record. It does not block.
func (d *DHT) Announce(services []string) {
	services = slices.Sorted(slices.Values(services))
	services = slices.Compact(services)
	if len(services) > MaxServices {
		d.log.Debug("too many services to announce all", "source", "dht", "services", len(services), "announced", MaxServices)
		services = services[:MaxServices]
	}
	d.mu.Lock()
	same := slices.Equal(d.services, services)
	d.services = services
	d.mu.Unlock()
	if same {
		return
	}
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

func (d *DHT) announced() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.services
}

// Run announces the services, each third of the records' lifetime and anew when they, this node's addresses or the table
// change, and keeps the table fresh, until ctx ends; then it returns nil.
func (d *DHT) Run(ctx context.Context) error {
	sub, err := d.host.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated), eventbus.BufSize(16), eventbus.Name("dht"))
	if err != nil {
		return fmt.Errorf("dht: follow the addresses: %w", err)
	}
	defer sub.Close()
	if d.awaitReady(ctx) != nil {
		return nil // it was told to end
	}
	meet := time.NewTimer(jitter(growthFirst))
	defer meet.Stop()
	refresh := time.NewTimer(jitter(refreshFirst))
	defer refresh.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	rounds := rate.NewLimiter(rate.Every(roundEvery), roundBurst)
	growth := growthFirst
	var due time.Time // when the next round is due at the latest
	for {
		grown := d.growth()
		if time.Until(due) < growth {
			grown = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.ctx.Done():
			return errClosed
		case <-meet.C:
			d.meet(ctx)
		case <-refresh.C:
			d.kad.RefreshRoutingTable()
			refresh.Reset(jitter(refreshEvery))
		case <-d.changed:
			growth = growthFirst
			next.Reset(settle)
		case <-sub.Out():
			next.Reset(settle)
		case <-grown:
			due = time.Now().Add(growth)
			meet.Reset(growth)
			next.Reset(growth + settle)
			growth = min(2*growth, d.cfg.Lifetime/3)
		case <-next.C:
			if rounds.Wait(ctx) != nil {
				return nil // it was told to end
			}
			d.round(ctx)
			due = time.Now().Add(d.period())
			next.Reset(time.Until(due))
		}
	}
}

// period is the time from one round to the next: a third of the records' lifetime, so that one may fail.
func (d *DHT) period() time.Duration { return jitter(d.cfg.Lifetime * 4 / 15) }

// jitter spreads d over three to five quarters of itself.
func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2) }

// meet looks up this node itself: those who are near to it come into the table, and it comes into theirs.
func (d *DHT) meet(ctx context.Context) {
	ctx, done, err := d.lookup(ctx)
	if err != nil {
		return
	}
	defer done()
	if _, err := d.kad.GetClosestPeers(ctx, string(d.host.ID())); err != nil {
		d.log.Debug("cannot look up the node itself", "source", "dht", "err", err)
	}
}

// round announces all services once, and where this node is if it is a client.
func (d *DHT) round(ctx context.Context) {
	if !d.Ready() {
		return
	}
	var g errgroup.Group
	g.SetLimit(announceAtOnce)
	if !d.Server() { // whom nobody asks is in nobody's table
		g.Go(func() error {
			if err := d.announce(ctx, peerKey(d.cfg.Network, d.host.ID())); err != nil && ctx.Err() == nil {
				d.log.Debug("cannot announce where this node is", "source", "dht", "err", err)
			}
			return nil
		})
	}
	for _, service := range d.announced() {
		g.Go(func() error {
			if err := d.announce(ctx, key(d.cfg.Network, service)); err != nil && ctx.Err() == nil {
				d.log.Debug("cannot announce", "source", "dht", "service", service, "err", err)
			}
			return nil
		})
	}
	_ = g.Wait()
}

// announce puts a record where it is looked for.
func (d *DHT) announce(ctx context.Context, at cid.Cid) error {
	ctx, done, err := d.lookup(ctx)
	if err != nil {
		return err
	}
	defer done()
	d.hand(ctx, at.Hash())
	return d.kad.Provide(ctx, at, true)
}

// hand gives a record to the nearest nodes among those that are connected: most lookups meet one of them.
func (d *DHT) hand(ctx context.Context, at multihash.Multihash) {
	n := 0
	for _, p := range d.kad.RoutingTable().NearestPeers(kbucket.ConvertKey(string(at)), 2*bucketSize) {
		if d.host.Network().Connectedness(p) != network.Connected {
			continue
		}
		if err := d.sender.SendMessage(ctx, p, pb.NewMessage(pb.Message_ADD_PROVIDER, at, 0)); err != nil {
			d.log.Debug("cannot hand over a record", "source", "dht", "peer", p, "err", err)
			continue
		}
		if n++; n == nearby {
			return
		}
	}
}
