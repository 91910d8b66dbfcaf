package neighbors

import (
	"container/list"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// maxBuckets is the number of askers whose rate is remembered. When one more comes, the one that has not asked for the
// longest is forgotten. Whoever has that many identities gains nothing by it: each new one starts with a full bucket
// anyway.
const maxBuckets = 1024

// limits holds one token bucket for each asker. It is safe for concurrent use.
type limits struct {
	every rate.Limit
	burst int

	mu      sync.Mutex
	buckets map[peer.ID]*list.Element // of bucket
	order   *list.List                // the bucket used last is in front
}

type bucket struct {
	asker   peer.ID
	limiter *rate.Limiter
}

func newLimits(every time.Duration, burst int) *limits {
	return &limits{
		every:   rate.Every(every),
		burst:   burst,
		buckets: make(map[peer.ID]*list.Element),
		order:   list.New(),
	}
}

// allow tells whether asker may ask now, and counts it if so.
func (l *limits) allow(asker peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bucket(asker).Allow()
}

func (l *limits) bucket(asker peer.ID) *rate.Limiter {
	if e, ok := l.buckets[asker]; ok {
		l.order.MoveToFront(e)
		b, _ := e.Value.(bucket)
		return b.limiter
	}
	if l.order.Len() >= maxBuckets {
		oldest, _ := l.order.Remove(l.order.Back()).(bucket)
		delete(l.buckets, oldest.asker)
	}
	b := bucket{asker: asker, limiter: rate.NewLimiter(l.every, l.burst)}
	l.buckets[asker] = l.order.PushFront(b)
	return b.limiter
}
