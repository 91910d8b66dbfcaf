package discovery

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"

	"github.com/lynn9388/p2p/internal/addr"
)

// Limits on signed peer records.
const (
	// MaxRecords is the most signed records that one answer may carry.
	MaxRecords = 64
	// MaxRecordSize is the most bytes of a signed record.
	MaxRecordSize = 4 << 10
	// MaxRecordAge is the greatest age of a signed record. A host signs anew when its addresses change, and when it
	// starts.
	MaxRecordAge = 30 * 24 * time.Hour

	// maxRecordSkew is how far a record may be in the future: clocks differ.
	maxRecordSkew = 24 * time.Hour
)

// Records returns signed peer records of at most limit connected members, chosen at random, for a peer that is
// connected over a link of scope to: records with no address of use there are left out, as is except. They are what
// identify brought, and at most [MaxRecordAge] old.
func (k *Keeper) Records(limit int, except peer.ID, to Scope) [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.core.records(time.Now(), min(limit, MaxRecords), except, to)
}

// RecordsOf is [Keeper.Records] of those among the peers named.
func (k *Keeper) RecordsOf(peers []peer.ID, limit int, except peer.ID, to Scope) [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	entries := make(map[peer.ID]*entry, len(peers))
	for _, p := range peers {
		if e := k.core.peers[p]; e != nil {
			entries[p] = e
		}
	}
	return k.core.recordsOf(entries, time.Now(), min(limit, MaxRecords), except, to)
}

func (c *core) records(now time.Time, limit int, except peer.ID, to Scope) [][]byte {
	return c.recordsOf(c.peers, now, limit, except, to)
}

func (c *core) recordsOf(peers map[peer.ID]*entry, now time.Time, limit int, except peer.ID, to Scope) [][]byte {
	var out [][]byte
	for p, e := range peers {
		if p == except || !e.member || e.conns == 0 || e.record == nil || !c.allowed(p) || !fresh(e.seq, now) {
			continue
		}
		if slices.ContainsFunc(e.addrs, func(a address) bool { return addr.ScopeOf(a.Multiaddr) >= to }) {
			out = append(out, e.record)
		}
	}
	c.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(len(out), max(limit, 0))]
}

// FoundRecords tells the keeper of peers by their signed records, as [Keeper.Records] of another node returned them.
// Records that are malformed, too large, too old, from the future, signed by somebody else or older than what is known
// are dropped, and so is what is over the limit in number. It returns how many were accepted.
func (k *Keeper) FoundRecords(envelopes [][]byte, from Origin) int {
	from.secondhand, from.Relay = true, k.relay()
	n := 0
	for _, b := range envelopes[:min(len(envelopes), MaxRecords)] {
		if k.stale(b) {
			continue
		}
		rec, err := openRecord(b, time.Now())
		if err != nil || rec.PeerID == k.h.ID() {
			continue
		}
		addrs := accepted(rec.PeerID, rec.Addrs, from)
		if len(addrs) == 0 {
			continue
		}
		k.input(func(c *core) {
			e := c.peers[rec.PeerID]
			if e != nil && (e.conns > 0 || rec.Seq < e.seq) {
				return // it told more itself, or later
			}
			n++
			c.found(rec.PeerID, addrs, from)
			if e := c.peers[rec.PeerID]; e != nil {
				e.seq = rec.Seq
			}
		})
	}
	return n
}

// stale tells whether a record says nothing new, without the cost of checking its signature: it may well be forged.
func (k *Keeper) stale(b []byte) bool {
	if len(b) > MaxRecordSize {
		return true
	}
	env, err := record.UnmarshalEnvelope(b)
	if err != nil {
		return true
	}
	var rec peer.PeerRecord
	if err := rec.UnmarshalRecord(env.RawPayload); err != nil {
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.core.peers[rec.PeerID]
	return e != nil && (e.conns > 0 || rec.Seq <= e.seq)
}

// openRecord checks a signed peer record: its size, that the peer that it is about signed it, and its age.
func openRecord(b []byte, now time.Time) (*peer.PeerRecord, error) {
	if len(b) > MaxRecordSize {
		return nil, errRecordSize
	}
	env, r, err := record.ConsumeEnvelope(b, peer.PeerRecordEnvelopeDomain)
	if err != nil {
		return nil, err
	}
	rec, ok := r.(*peer.PeerRecord)
	if !ok {
		return nil, errRecordKind
	}
	if !rec.PeerID.MatchesPublicKey(env.PublicKey) {
		return nil, errRecordSigner
	}
	if !fresh(rec.Seq, now) {
		return nil, errRecordAge
	}
	return rec, nil
}

// recordOf returns the bytes of the record that p itself sent, and its sequence number; nil if it is of no use.
func recordOf(p peer.ID, env *record.Envelope) ([]byte, uint64) {
	b, err := env.Marshal()
	if err != nil {
		return nil, 0
	}
	rec, err := openRecord(b, time.Now())
	if err != nil || rec.PeerID != p {
		return nil, 0
	}
	return b, rec.Seq
}

// fresh tells whether a sequence number, which is the time of signing in nanoseconds, is recent.
func fresh(seq uint64, now time.Time) bool {
	n := now.UnixNano()
	if seq > uint64(max(n, 0))+uint64(maxRecordSkew) {
		return false
	}
	return seq+uint64(MaxRecordAge) >= uint64(max(n, 0))
}

// recordError tells why a record was dropped.
type recordError string

func (e recordError) Error() string { return "discovery: peer record: " + string(e) }

const (
	errRecordSize   recordError = "too large"
	errRecordKind   recordError = "not a peer record"
	errRecordSigner recordError = "not signed by the peer it is about"
	errRecordAge    recordError = "too old, or from the future"
)
