package mdns

import (
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
)

const (
	// answerJitter spreads the answers of many nodes to one query. RFC 6762, section 6, asks for 20 to 120 ms; less
	// serves a first call better, and the packets are small.
	answerJitter = 25 * time.Millisecond
	// answerGap is the least time between two announcements on a link, however many ask. RFC 6762, section 6, asks
	// for a second, which would make a second node wait.
	answerGap = 250 * time.Millisecond
	// refreshGap is the least time between two queries on a link.
	refreshGap = 200 * time.Millisecond
	// readPause is the wait after a failed read.
	readPause = 100 * time.Millisecond
	// readBuffer holds any packet of ours; longer ones are of others and are cut off.
	readBuffer = 2048
)

// burst is when a link is asked, and told, after something has changed: at once, for one packet that was lost, while
// an IPv6 address is not usable yet (about 2 s), and while a switch still learns.
func burst() []time.Duration {
	return []time.Duration{0, 250 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}
}

// A link is one interface and family of addresses, with its socket and what is due on it. All fields belong to the
// loop; the reader's goroutine has the connection only.
type link struct {
	id    linkID
	iface host.Interface
	addrs []ma.Multiaddr

	conn conn
	err  error // why it cannot be opened, or the last write's

	changed  time.Time   // when the interface or its addresses last changed: who was heard before is asked again
	queries  []time.Time // the burst that is still to come
	queryAt  time.Time
	answers  []time.Time
	answerAt time.Time // zero: none due
	answered time.Time // when the last went out
	asked    time.Time

	looped bool // its own packets were heard
	sent   time.Time
}

// packet is what a link has heard.
type packet struct {
	link *link
	message
}

// start begins a burst of queries and announcements.
func (l *link) start(now time.Time) {
	l.changed = now
	l.queries, l.answers = nil, nil
	for _, d := range burst() {
		l.queries = append(l.queries, now.Add(d))
		l.answers = append(l.answers, now.Add(d))
	}
	l.queryAt, l.queries = l.queries[0], l.queries[1:]
	l.answerAt, l.answers = l.answers[0], l.answers[1:]
}

// ask makes a query due soon.
func (l *link) ask(now time.Time) {
	if at := later(now, l.asked.Add(refreshGap)); l.queryAt.After(at) {
		l.queryAt = at
	}
}

// answer makes an announcement due soon.
func (l *link) answer(now time.Time) {
	at := later(now.Add(rand.N(answerJitter)), l.answered.Add(answerGap)) //nolint:gosec // no secret
	if l.answerAt.IsZero() || l.answerAt.After(at) {
		l.answerAt = at
	}
}

func (l *link) answerDue(now time.Time) bool { return !l.answerAt.IsZero() && !l.answerAt.After(now) }
func (l *link) queryDue(now time.Time) bool  { return !l.queryAt.After(now) }

// next is when something is due.
func (l *link) next() time.Time {
	if l.answerAt.IsZero() || l.queryAt.Before(l.answerAt) {
		return l.queryAt
	}
	return l.answerAt
}

// queryDone plans the next query: the rest of the burst, or every interval, give or take a tenth.
func (l *link) queryDone(now time.Time, interval time.Duration) {
	l.asked = now
	spread := interval / 5
	l.queryAt = now.Add(interval - spread/2 + rand.N(spread)) //nolint:gosec // no secret
	if len(l.queries) > 0 && l.queries[0].Before(l.queryAt) {
		l.queryAt, l.queries = l.queries[0], l.queries[1:]
	}
}

// answerDone plans the next announcement of the burst.
func (l *link) answerDone(now time.Time) {
	l.answered, l.answerAt = now, time.Time{}
	if len(l.answers) > 0 {
		l.answerAt, l.answers = later(l.answers[0], now.Add(answerGap)), l.answers[1:]
	}
}

func (l *link) write(b []byte, now time.Time) {
	if l.conn == nil {
		return
	}
	if l.err = l.conn.write(b); l.err == nil && l.sent.IsZero() {
		l.sent = now
	}
}

// change takes over what the plan says now and reports whether something is different.
func (l *link) change(p planned) bool {
	same := l.iface.Flags == p.iface.Flags && slices.Equal(l.iface.Addrs, p.iface.Addrs) &&
		slices.EqualFunc(l.addrs, p.addrs, ma.Multiaddr.Equal)
	l.iface, l.addrs = p.iface, p.addrs
	return !same
}

// readLoop hands what is heard to the loop until the connection is closed. When the loop does not keep up, packets
// are dropped: each node tells again.
func readLoop(l *link, c conn, n names, out chan<- packet, stop <-chan struct{}) {
	buf := make([]byte, readBuffer)
	for {
		size, err := c.read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-time.After(readPause):
				continue
			case <-stop:
				return
			}
		}
		m, err := n.parse(buf[:size])
		if err != nil {
			continue
		}
		select {
		case out <- packet{link: l, message: m}:
		default:
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// readers counts the goroutines of a run.
type readers struct {
	sync.WaitGroup
	stop chan struct{}
}
