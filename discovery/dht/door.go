package dht

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"golang.org/x/time/rate"
)

const (
	// maxRequest bounds a request: a key and one peer with its addresses.
	maxRequest = 8 << 10
	// requestRate and requestBurst bound the requests of one peer. A node that starts announces MaxServices services at
	// once, with two requests to everybody for each.
	requestRate  = 50
	requestBurst = 2*MaxServices + 128
	// maxAskers is how many peers' rates are remembered; the one that has not asked for the longest is forgotten first.
	maxAskers = 1024
	// maxStreams bounds the requests of all peers that are under way, and of one.
	maxStreams        = 256
	maxStreamsPerPeer = 32
	// identifyTimeout is how long a new peer may take to say that it is a member.
	identifyTimeout = 5 * time.Second
)

// refused is a type of request that nobody answers: the library resets the stream.
const refused pb.Message_MessageType = -1

// A door decides which requests are answered.
type door struct {
	d *DHT

	mu      sync.Mutex
	closed  bool
	streams map[network.Stream]struct{}
	peers   map[peer.ID]int
	busy    sync.WaitGroup

	askers map[peer.ID]*list.Element // of asker
	order  *list.List                // who asked last is in front
	total  int                       // requests ever
}

type asker struct {
	id   peer.ID
	rate *rate.Limiter
}

func newDoor(d *DHT) *door {
	return &door{
		d:       d,
		streams: make(map[network.Stream]struct{}),
		peers:   make(map[peer.ID]int),
		askers:  make(map[peer.ID]*list.Element),
		order:   list.New(),
	}
}

// guard lets only members' streams through to the handler, and bounds how many there are.
func (o *door) guard(handler network.StreamHandler) network.StreamHandler {
	return func(s network.Stream) {
		if !o.enter(s) {
			_ = s.Reset()
			return
		}
		defer o.leave(s)
		if !o.d.identified(s.Conn()) {
			_ = s.Reset()
			return
		}
		handler(&framed{Stream: s})
	}
}

func (o *door) enter(s network.Stream) bool {
	p := s.Conn().RemotePeer()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || len(o.streams) >= maxStreams || o.peers[p] >= maxStreamsPerPeer {
		return false
	}
	o.streams[s] = struct{}{}
	o.peers[p]++
	o.busy.Add(1)
	return true
}

func (o *door) leave(s network.Stream) {
	p := s.Conn().RemotePeer()
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.streams, s)
	if o.peers[p]--; o.peers[p] == 0 {
		delete(o.peers, p)
	}
	o.busy.Done()
}

// drop ends the requests under way.
func (o *door) drop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for s := range o.streams {
		_ = s.Reset()
	}
}

// close ends the requests under way, waits for their end and lets nobody in any more.
func (o *door) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.drop()
	o.busy.Wait()
}

// identified tells whether the peer at the other end is a member, once it has said what it speaks.
func (d *DHT) identified(c network.Conn) bool {
	if ids, ok := d.host.(interface{ IDService() identify.IDService }); ok && ids.IDService() != nil {
		select {
		case <-ids.IDService().IdentifyWait(c):
		case <-time.After(identifyTimeout):
		case <-d.ctx.Done():
			return false
		}
	}
	return d.member(c.RemotePeer())
}

// request looks at a request before the library does. It runs on the stream's own goroutine.
func (o *door) request(_ context.Context, s network.Stream, req *pb.Message) {
	p := s.Conn().RemotePeer()
	if !o.allow(p) {
		req.Type = refused
		return
	}
	req.CloserPeers, req.Record = nil, nil
	if req.GetType() != pb.Message_ADD_PROVIDER {
		req.ProviderPeers = nil
		return
	}
	// A peer speaks for itself only.
	var own []*pb.Message_Peer
	for _, m := range req.GetProviderPeers() {
		if peer.ID(m.GetId()) == p {
			own = append(own, m)
			break
		}
	}
	req.ProviderPeers = o.d.boundPeers(o.d.origin(p), own, 1)
}

// allow tells whether p may ask now, and counts it if so.
func (o *door) allow(p peer.ID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.total++
	if e, ok := o.askers[p]; ok {
		o.order.MoveToFront(e)
		a, _ := e.Value.(asker)
		return a.rate.Allow()
	}
	if o.order.Len() >= maxAskers {
		oldest, _ := o.order.Remove(o.order.Back()).(asker)
		delete(o.askers, oldest.id)
	}
	a := asker{id: p, rate: rate.NewLimiter(requestRate, requestBurst)}
	o.askers[p] = o.order.PushFront(a)
	return a.rate.Allow()
}

// errTooLarge ends a stream whose next message would be too large.
var errTooLarge = errors.New("dht: the request is too large")

// framed is a stream of messages, each after its length, that ends before one that is too large: the library would make
// room for megabytes first.
type framed struct {
	network.Stream
	length  uint64 // of the message, as far as it was read
	shift   uint
	payload uint64 // bytes of the message to come
}

// Read implements [network.Stream].
func (f *framed) Read(b []byte) (int, error) {
	n, err := f.Stream.Read(b)
	for rest := b[:n]; len(rest) > 0; {
		if f.payload > 0 {
			skip := min(f.payload, uint64(len(rest)))
			f.payload -= skip
			rest = rest[skip:]
			continue
		}
		f.length |= uint64(rest[0]&0x7f) << f.shift
		f.shift += 7
		if f.length > maxRequest || f.shift > 28 {
			_ = f.Reset()
			return 0, errTooLarge
		}
		if rest[0] < 0x80 {
			f.payload, f.length, f.shift = f.length, 0, 0
		}
		rest = rest[1:]
	}
	return n, err
}
