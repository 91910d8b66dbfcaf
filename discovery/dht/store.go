package dht

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

const (
	// MaxRecords bounds the records that a node keeps for the network, its own included: about 6 MB. Beyond it one goes,
	// by lot, for each that comes; its owner announces it again.
	MaxRecords = 16384
	// maxPerKey bounds the instances that are kept of one service, and maxPerPeer the services of one peer and what says
	// where the peer itself is.
	maxPerKey  = 512
	maxPerPeer = MaxServices + 1
)

// sweepEvery is how often a store that is full is looked through for what is too old.
const sweepEvery = time.Second

// errFull refuses a record.
var errFull = errors.New("dht: too many records of this service or peer")

// A store keeps the records in memory: service, who offers it, since when. It is the datastore that the library wants,
// as far as that uses it: its keys are /providers/<service>/<peer>.
type store struct {
	lifetime time.Duration

	mu      sync.Mutex
	n       int
	expired time.Time                   // when what was too old was dropped last
	keys    map[string]map[string]entry // by service, by peer
	peers   map[string]int              // records by peer
}

type entry struct {
	value []byte
	at    time.Time
}

var _ datastore.Batching = (*store)(nil)

func newStore(lifetime time.Duration) *store {
	return &store{lifetime: lifetime, keys: make(map[string]map[string]entry), peers: make(map[string]int)}
}

// split takes a record's key apart; peer is empty in a service's.
func split(key string) (service, peer string) {
	rest := strings.TrimPrefix(strings.TrimPrefix(key, "/"), "providers")
	service, peer, _ = strings.Cut(strings.Trim(rest, "/"), "/")
	return service, peer
}

// Put implements [datastore.Datastore].
func (s *store) Put(_ context.Context, key datastore.Key, value []byte) error {
	service, peer := split(key.String())
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.keys[service]
	if _, known := of[peer]; !known {
		if len(of) >= maxPerKey || s.peers[peer] >= maxPerPeer {
			s.expireLocked()
			if of = s.keys[service]; len(of) >= maxPerKey || s.peers[peer] >= maxPerPeer {
				return errFull
			}
		}
		if s.n >= MaxRecords {
			s.makeRoomLocked()
			of = s.keys[service]
		}
		s.n++
		s.peers[peer]++
	}
	if of == nil {
		of = make(map[string]entry)
		s.keys[service] = of
	}
	of[peer] = entry{value: value, at: time.Now()}
	return nil
}

// makeRoomLocked drops what is too old, or else a record by lot (a map's order), so that a flood cannot aim.
func (s *store) makeRoomLocked() {
	if s.expireLocked(); s.n < MaxRecords {
		return
	}
	for service, of := range s.keys {
		for peer := range of {
			s.dropLocked(service, peer)
			return
		}
	}
}

// expireLocked drops what is too old. It looks at all records, so it is not done often.
func (s *store) expireLocked() {
	now := time.Now()
	if now.Sub(s.expired) < sweepEvery {
		return
	}
	s.expired = now
	for service, of := range s.keys {
		for peer, e := range of {
			if now.Sub(e.at) > s.lifetime {
				s.dropLocked(service, peer)
			}
		}
	}
}

func (s *store) dropLocked(service, peer string) {
	of := s.keys[service]
	if _, ok := of[peer]; !ok {
		return
	}
	if delete(of, peer); len(of) == 0 {
		delete(s.keys, service)
	}
	s.n--
	if s.peers[peer]--; s.peers[peer] == 0 {
		delete(s.peers, peer)
	}
}

func (s *store) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// Delete implements [datastore.Datastore].
func (s *store) Delete(_ context.Context, key datastore.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(split(key.String()))
	return nil
}

// Query implements [datastore.Datastore]: of the query it heeds the prefix, which is that of a service or of all.
func (s *store) Query(_ context.Context, q query.Query) (query.Results, error) {
	service, _ := split(q.Prefix)
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []query.Entry
	add := func(service string) {
		for peer, e := range s.keys[service] {
			out = append(out, query.Entry{Key: "/providers/" + service + "/" + peer, Value: e.value, Size: len(e.value)})
		}
	}
	if service != "" {
		add(service)
	} else {
		for service := range s.keys {
			add(service)
		}
	}
	return query.ResultsWithEntries(q, out), nil
}

// Get implements [datastore.Datastore].
func (s *store) Get(_ context.Context, key datastore.Key) ([]byte, error) {
	service, peer := split(key.String())
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.keys[service][peer]; ok {
		return e.value, nil
	}
	return nil, datastore.ErrNotFound
}

// Has implements [datastore.Datastore].
func (s *store) Has(ctx context.Context, key datastore.Key) (bool, error) {
	return datastore.GetBackedHas(ctx, s, key)
}

// GetSize implements [datastore.Datastore].
func (s *store) GetSize(ctx context.Context, key datastore.Key) (int, error) {
	return datastore.GetBackedSize(ctx, s, key)
}

// Sync implements [datastore.Datastore].
func (s *store) Sync(context.Context, datastore.Key) error { return nil }

// Close implements [datastore.Datastore].
func (s *store) Close() error { return nil }

// Batch implements [datastore.Batching].
func (s *store) Batch(context.Context) (datastore.Batch, error) {
	return datastore.NewBasicBatch(s), nil
}

// noCache is the cache in front of a store that needs none.
type noCache struct{}

func (noCache) Add(any, any) bool              { return false }
func (noCache) Get(any) (any, bool)            { return nil, false }
func (noCache) Contains(any) bool              { return false }
func (noCache) Peek(any) (any, bool)           { return nil, false }
func (noCache) Remove(any) bool                { return false }
func (noCache) RemoveOldest() (any, any, bool) { return nil, nil, false }
func (noCache) GetOldest() (any, any, bool)    { return nil, nil, false }
func (noCache) Keys() []any                    { return nil }
func (noCache) Len() int                       { return 0 }
func (noCache) Purge()                         {}
func (noCache) Resize(int) int                 { return 0 }
