package dht

import (
	"container/list"
	"context"
	"errors"
	"slices"
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
	// maxStreams bounds the requests of all peers that are under way, and of one. Each lasts requestTimeout at most.
	maxStreams        = 256
	maxStreamsPerPeer = 32
)

// refused is a type of request that nobody answers: the library resets the stream.
const refused pb.Message_MessageType = -1

// A door decides which requests are answered.
type door struct {
	d *DHT

	mu     sync.Mutex
	closed bool
	n      int                  // guests
	guests map[peer.ID][]*guest // who came first is in front
	busy   sync.WaitGroup

	askers map[peer.ID]*list.Element // of asker
	order  *list.List                // who asked last is in front
	total  int                       // requests ever
}

// A guest is a stream that was let in.
type guest struct {
	since time.Time
	end   context.CancelFunc // resets the stream
}

type asker struct {
	id   peer.ID
	rate *rate.Limiter
}

func newDoor(d *DHT) *door {
	return &door{
		d:      d,
		guests: make(map[peer.ID][]*guest),
		askers: make(map[peer.ID]*list.Element),
		order:  list.New(),
	}
}

// guard lets only members' streams through to the handler, and bounds how many there are and how long they last: who
// asks opens a stream for each question.
func (o *door) guard(handler network.StreamHandler) network.StreamHandler {
	return func(s network.Stream) {
		ctx, end := context.WithTimeout(o.d.ctx, requestTimeout)
		defer end()
		p, g := s.Conn().RemotePeer(), &guest{since: time.Now(), end: end}
		if !o.enter(p, g) {
			_ = s.Reset()
			return
		}
		defer o.leave(p, g)
		defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
		if !o.d.identified(ctx, s.Conn()) {
			_ = s.Reset()
			return
		}
		handler(&framed{Stream: s})
	}
}

func (o *door) enter(p peer.ID, g *guest) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || len(o.guests[p]) >= maxStreamsPerPeer || o.n >= maxStreams && !o.makeRoomLocked(p) {
		return false
	}
	o.guests[p] = append(o.guests[p], g)
	o.n++
	o.busy.Add(1)
	return true
}

// makeRoomLocked ends the oldest stream of the peer that has most, so that a few peers cannot keep the others out. It
// returns false if nobody has more than p.
func (o *door) makeRoomLocked(p peer.ID) bool {
	var most peer.ID
	for q, of := range o.guests {
		if m := o.guests[most]; len(of) > len(m) || len(of) == len(m) && of[0].since.Before(m[0].since) {
			most = q
		}
	}
	if len(o.guests[most]) <= len(o.guests[p]) {
		return false
	}
	g := o.guests[most][0]
	o.removeLocked(most, g)
	g.end()
	return true
}

func (o *door) leave(p peer.ID, g *guest) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.removeLocked(p, g)
	o.busy.Done()
}

// removeLocked takes a guest out, if it is still in.
func (o *door) removeLocked(p peer.ID, g *guest) {
	i := slices.Index(o.guests[p], g)
	if i < 0 {
		return
	}
	o.n--
	if o.guests[p] = slices.Delete(o.guests[p], i, i+1); len(o.guests[p]) == 0 {
		delete(o.guests, p)
	}
}

// drop ends the requests under way.
func (o *door) drop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, of := range o.guests {
		for _, g := range of {
			g.end()
		}
	}
}

// close lets nobody in any more and waits for the end of the requests under way. The DHT's context has ended.
func (o *door) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.busy.Wait()
}

// identified tells whether the peer at the other end is a member, once it has said what it speaks.
func (d *DHT) identified(ctx context.Context, c network.Conn) bool {
	if ids, ok := d.host.(interface{ IDService() identify.IDService }); ok && ids.IDService() != nil {
		select {
		case <-ids.IDService().IdentifyWait(c):
		case <-ctx.Done():
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
	req.ProviderPeers = o.d.boundPeers(o.d.cfg.Origin(p), own, 1)
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
