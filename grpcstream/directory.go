package grpcstream

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
)

// maxServices bounds the services believed of one peer, announced or read from its catalog.
const maxServices = 4096

// An entry is what a connected peer offers. It is never changed once it is in the directory.
type entry struct {
	tunnel    bool     // it speaks the network's tunnel protocol
	many      bool     // its services are in its catalog
	announced []string // sorted
	catalog   []string // sorted
	services  []string // all of them, sorted; none without the tunnel
	tags      []string // sorted
	relayed   bool     // it is connected over a relay only
}

// A directory knows which peers are connected and what they offer. It learns it from identify's events, which carry
// all that a peer announces, and not from the peerstore, which may keep less.
type directory struct {
	host    corehost.Host
	network string
	self    Local
	log     *slog.Logger
	sub     event.Subscription
	paths   *pathTracker

	changed func(id peer.ID, e *entry) // an entry is new, another one, or gone (nil)
	back    func(id peer.ID)           // a peer was connected
	many    func(id peer.ID)           // a peer's catalog is to be read, again

	changing sync.Mutex // held while an entry is replaced and that is told, so that what is told last is true

	mu       sync.Mutex
	entries  map[peer.ID]*entry
	arrivals map[peer.ID]map[*func()]struct{}
	watchers map[chan struct{}]struct{}

	ended chan struct{} // closed when it no longer runs
}

// newDirectory returns a directory that follows h's events from now on, once it runs. Its functions may be set until
// then.
func newDirectory(h corehost.Host, networkName string, self Local, log *slog.Logger) (*directory, error) {
	sub, err := h.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted),
		new(event.EvtPeerProtocolsUpdated),
		new(event.EvtPeerConnectednessChanged),
		new(event.EvtLocalProtocolsUpdated),
	}, eventbus.BufSize(1024), eventbus.Name("grpcstream"))
	if err != nil {
		return nil, fmt.Errorf("grpcstream: follow the host's events: %w", err)
	}
	d := &directory{
		host: h, network: networkName, self: self, log: log, sub: sub,
		paths:    newPathTracker(h.Network()),
		changed:  func(peer.ID, *entry) {},
		back:     func(peer.ID) {},
		many:     func(peer.ID) {},
		entries:  map[peer.ID]*entry{},
		arrivals: map[peer.ID]map[*func()]struct{}{},
		watchers: map[chan struct{}]struct{}{},
		ended:    make(chan struct{}),
	}
	d.paths.moved = d.repath
	return d, nil
}

// run follows the events until ctx ends. tick is called each interval.
func (d *directory) run(ctx context.Context, interval time.Duration, tick func()) {
	defer close(d.ended)
	defer d.sub.Close()
	d.start()
	var paths sync.WaitGroup
	defer paths.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	paths.Go(func() { d.paths.run(ctx) })
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			d.purge()
			tick()
		case e, ok := <-d.sub.Out():
			if !ok {
				return
			}
			d.handle(e)
		}
	}
}

// start takes in what was before the first event: the peers already connected, of which only the peerstore can tell.
func (d *directory) start() {
	d.refreshSelf()
	for _, id := range d.host.Network().Peers() {
		if pids, err := d.host.Peerstore().GetProtocols(id); err == nil && len(pids) > 0 {
			d.update(id, pids)
		}
	}
}

func (d *directory) handle(e any) {
	switch e := e.(type) {
	case event.EvtPeerIdentificationCompleted:
		if e.Conn == nil || !e.Conn.IsClosed() || d.isConnected(e.Peer) {
			d.update(e.Peer, e.Protocols)
		}
	case event.EvtPeerProtocolsUpdated:
		d.amend(e.Peer, e.Added, e.Removed)
	case event.EvtPeerConnectednessChanged:
		if d.isConnected(e.Peer) {
			d.arrived(e.Peer)
		} else {
			d.set(e.Peer, nil)
		}
	case event.EvtLocalProtocolsUpdated:
		d.refreshSelf()
	}
}

func (d *directory) isConnected(id peer.ID) bool {
	switch d.host.Network().Connectedness(id) {
	case network.Connected, network.Limited:
		return true
	default:
		return false
	}
}

// isRelayed tells whether a peer is connected over a relay only.
func (d *directory) isRelayed(id peer.ID) bool {
	c := newest(d.host.Network().ConnsToPeer(id))
	return c != nil && overRelay(c)
}

// repath takes in that a peer may be connected by another path than before.
func (d *directory) repath(id peer.ID) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if old := d.lookup(id); old != nil && old.relayed != d.isRelayed(id) {
		e := *old
		d.put(id, &e, false)
	}
}

// purge drops peers whose end went unnoticed.
func (d *directory) purge() {
	d.mu.Lock()
	var gone []peer.ID
	for id := range d.entries {
		if id != d.host.ID() && !d.isConnected(id) {
			gone = append(gone, id)
		}
	}
	d.mu.Unlock()
	for _, id := range gone {
		d.set(id, nil)
	}
}

// refreshSelf takes in what the host offers to itself: its services, once its server is started.
func (d *directory) refreshSelf() {
	if d.self == nil {
		return
	}
	if !slices.Contains(d.host.Mux().Protocols(), TunnelProtocol(d.network)) {
		d.set(d.host.ID(), nil)
		return
	}
	e := &entry{tunnel: true, announced: slices.Sorted(slices.Values(d.self.Services())), tags: d.self.Tags()}
	d.set(d.host.ID(), e)
}

// read fills in an entry from protocol IDs.
func (d *directory) read(e *entry, pids []protocol.ID) {
	for _, pid := range pids {
		switch pid {
		case TunnelProtocol(d.network):
			e.tunnel = true
		case manyServices(d.network):
			e.many = true
		default:
			if name, ok := announcedService(d.network, pid); ok && !IsSystemService(name) && len(e.announced) < maxServices {
				e.announced = append(e.announced, name)
			} else if tag, ok := announcedTag(d.network, pid); ok && len(e.tags) < maxTags {
				e.tags = append(e.tags, tag)
			}
		}
	}
	e.announced, e.tags = set(e.announced), set(e.tags)
}

// update takes in all that a peer announces.
func (d *directory) update(id peer.ID, pids []protocol.ID) {
	e := &entry{}
	d.read(e, pids)
	d.set(id, e)
}

// amend takes in what a peer announces besides, and what no longer.
func (d *directory) amend(id peer.ID, added, removed []protocol.ID) {
	var plus, minus entry
	d.read(&plus, added)
	d.read(&minus, removed)
	d.changing.Lock()
	defer d.changing.Unlock()
	old := d.lookup(id)
	if old == nil {
		return // the event with the whole list is on its way
	}
	e := &entry{
		tunnel: (old.tunnel || plus.tunnel) && !minus.tunnel,
		many:   (old.many || plus.many) && !minus.many,
	}
	e.announced = amended(old.announced, plus.announced, minus.announced)
	e.tags = amended(old.tags, plus.tags, minus.tags)
	e.announced = e.announced[:min(len(e.announced), maxServices)] // a peer's list as libp2p keeps it may be shorter than its events
	e.tags = e.tags[:min(len(e.tags), maxTags)]
	d.put(id, e, true)
}

// set sorts names and takes out what is there twice.
func set(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// amended returns a set with one set added and another one removed.
func amended(old, plus, minus []string) []string {
	var names []string
	for _, name := range old {
		if _, gone := slices.BinarySearch(minus, name); !gone {
			names = append(names, name)
		}
	}
	return set(append(names, plus...))
}

// setCatalog takes in the names that a peer's catalog holds.
func (d *directory) setCatalog(id peer.ID, names []string) {
	d.changing.Lock()
	defer d.changing.Unlock()
	old := d.lookup(id)
	if old == nil || !old.many {
		return
	}
	e := *old
	e.catalog = nil
	for _, name := range names {
		if checkService(name) == nil && !IsSystemService(name) && len(e.catalog) < maxServices {
			e.catalog = append(e.catalog, name)
		}
	}
	e.catalog = set(e.catalog)
	d.put(id, &e, false)
}

// set replaces the entry of a peer; nil removes it.
func (d *directory) set(id peer.ID, e *entry) {
	d.changing.Lock()
	defer d.changing.Unlock()
	d.put(id, e, true)
}

// put is set for one who holds the lock changing.
func (d *directory) put(id peer.ID, e *entry, announcement bool) {
	d.mu.Lock()
	old := d.entries[id]
	if e == nil {
		if old == nil {
			d.mu.Unlock()
			return
		}
		delete(d.entries, id)
	} else {
		if e.many && announcement && old != nil {
			e.catalog = old.catalog // until it is read again
		}
		e.relayed = d.isRelayed(id)
		if e.tunnel {
			e.services = set(slices.Concat(e.announced, e.catalog))
		}
		d.entries[id] = e
	}
	d.mu.Unlock()
	d.changed(id, e)
	d.mu.Lock()
	for w := range d.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
	d.mu.Unlock()
	if announcement && e != nil && e.many && e.tunnel {
		d.many(id)
	}
}

// arrived says that a peer was connected.
func (d *directory) arrived(id peer.ID) {
	d.mu.Lock()
	var call []func()
	for f := range d.arrivals[id] {
		call = append(call, *f)
	}
	d.mu.Unlock()
	for _, f := range call {
		f()
	}
	d.back(id)
}

// onConnected calls f, which must not block, each time the peer is connected, until the function returned is called.
func (d *directory) onConnected(id peer.ID, f func()) (stop func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.arrivals[id] == nil {
		d.arrivals[id] = map[*func()]struct{}{}
	}
	d.arrivals[id][&f] = struct{}{}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.arrivals[id], &f)
		if len(d.arrivals[id]) == 0 {
			delete(d.arrivals, id)
		}
	}
}

// lookup returns the entry of a peer, or nil.
func (d *directory) lookup(id peer.ID) *entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.entries[id]
}

// settled returns the entry of a peer once it was told, or nil.
func (d *directory) settled(id peer.ID) *entry {
	d.changing.Lock()
	defer d.changing.Unlock()
	return d.lookup(id)
}

// instances returns who offers a service, sorted.
func (d *directory) instances(service string) []peer.ID {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ids []peer.ID
	for id, e := range d.entries {
		if _, ok := slices.BinarySearch(e.services, service); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
