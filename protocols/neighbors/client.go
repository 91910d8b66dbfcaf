package neighbors

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"google.golang.org/grpc"
)

// timeout ends a call whose context has no deadline of its own.
const timeout = 10 * time.Second

// ErrAnswer means that a neighbor's answer breaks the protocol: too many records, or records of which not a single one
// is valid. Errors of the call itself keep their gRPC status.
var ErrAnswer = errors.New("answer breaks the protocol")

// A Neighbor is a peer that a node says it is connected to, with a record that holds.
type Neighbor struct {
	// Record is what the peer signed. Addresses over [MaxAddrs] are cut off.
	Record peer.PeerRecord
	// Signed has the verified envelope itself, and its age by the word of the node that was asked.
	Signed
}

// Ask asks the node behind cc for its neighbors and returns those whose records hold: the signature and its domain are
// right, the signer is the peer the record is about, size and age are within the limits. Others are dropped; of
// several records of one peer the newest is kept, and addresses over [MaxAddrs] are cut. max is how many records are
// wanted: at most [MaxRecords], which 0 means as well. An answer with more records than wanted, with more than
// [MaxTotal] bytes of them, or with none that holds among several, is refused with [ErrAnswer].
//
// cc must lead to one node, not to any instance of a service. Without a deadline in ctx it gives up after 10 s. The
// records are in the order in which they came and may include the caller's own.
func Ask(ctx context.Context, cc grpc.ClientConnInterface, max int) ([]Neighbor, error) {
	signed, err := AskUnverified(ctx, cc, max)
	if err != nil {
		return nil, err
	}
	records, err := verifyAll(signed)
	if err != nil {
		return nil, fmt.Errorf("neighbors: ask: %w: %w", ErrAnswer, err)
	}
	return records, nil
}

// AskUnverified is [Ask] for a caller that verifies the records itself, and only those that are new to it: it holds the
// limits on number, size and age, and looks at no signature.
func AskUnverified(ctx context.Context, cc grpc.ClientConnInterface, max int) ([]Signed, error) {
	ctx, cancel := bounds(ctx, &max)
	defer cancel()
	res, err := NewNeighborServiceClient(cc).Neighbors(ctx, &NeighborsRequest{Max: uint32(max)},
		grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("neighbors: ask: %w", err)
	}
	signed, err := within(res.GetRecords(), max)
	if err != nil {
		return nil, fmt.Errorf("neighbors: ask: %w: %w", ErrAnswer, err)
	}
	return signed, nil
}

// Find asks the node behind cc who offers a service among itself and its neighbors, and returns those whose records hold.
// It is bounded and verified as [Ask] is.
func Find(ctx context.Context, cc grpc.ClientConnInterface, service string, max int) ([]Neighbor, error) {
	ctx, cancel := bounds(ctx, &max)
	defer cancel()
	res, err := NewNeighborServiceClient(cc).FindService(ctx, &FindServiceRequest{Service: service, Max: uint32(max)},
		grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("neighbors: find: %w", err)
	}
	signed, err := within(res.GetRecords(), max)
	if err != nil {
		return nil, fmt.Errorf("neighbors: find: %w: %w", ErrAnswer, err)
	}
	records, err := verifyAll(signed)
	if err != nil {
		return nil, fmt.Errorf("neighbors: find: %w: %w", ErrAnswer, err)
	}
	return records, nil
}

// bounds gives a question its deadline and its limit.
func bounds(ctx context.Context, max *int) (context.Context, context.CancelFunc) {
	if *max <= 0 || *max > MaxRecords {
		*max = MaxRecords
	}
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// within returns the records that are within the limits.
func within(received []*Record, max int) ([]Signed, error) {
	if n := len(received); n > max {
		return nil, fmt.Errorf("%d records, %d were asked for", n, max)
	}
	total := 0
	for _, r := range received {
		total += len(r.GetSignedEnvelope())
	}
	if total > MaxTotal {
		return nil, fmt.Errorf("%d bytes of records, at most %d are allowed", total, MaxTotal)
	}
	var out []Signed
	var first error
	for _, r := range received {
		s := Signed{Envelope: r.GetSignedEnvelope(), Age: time.Duration(r.GetAgeSeconds()) * time.Second}
		switch {
		case len(s.Envelope) > MaxEnvelope:
			first = cmp.Or(first, fmt.Errorf("an envelope of %d bytes, at most %d are allowed", len(s.Envelope), MaxEnvelope))
		case s.Age > MaxAge:
			first = cmp.Or(first, fmt.Errorf("a record %v old, at most %v are allowed", s.Age, MaxAge))
		default:
			out = append(out, s)
		}
	}
	return orFirst(out, first, len(received))
}

// orFirst is an error when there were records and not a single one is left.
func orFirst[T any](out []T, first error, received int) ([]T, error) {
	if len(out) == 0 && first != nil {
		return nil, fmt.Errorf("none of %d records holds, the first: %w", received, first)
	}
	return out, nil
}

// verifyAll returns the records that hold.
func verifyAll(signed []Signed) ([]Neighbor, error) {
	var out []Neighbor
	var first error
	at := make(map[peer.ID]int)
	for _, s := range signed {
		n, err := verify(s)
		if err != nil {
			first = cmp.Or(first, err)
			continue
		}
		if i, ok := at[n.Record.PeerID]; !ok {
			at[n.Record.PeerID] = len(out)
			out = append(out, n)
		} else if n.Record.Seq > out[i].Record.Seq {
			out[i] = n
		}
	}
	return orFirst(out, first, len(signed))
}

// verify returns the neighbor in s if its record holds.
func verify(s Signed) (Neighbor, error) {
	var rec peer.PeerRecord
	env, err := record.ConsumeTypedEnvelope(s.Envelope, &rec) // checks the signature over the peer record's domain
	if err != nil {
		return Neighbor{}, err
	}
	if !bytes.Equal(env.PayloadType, peer.PeerRecordEnvelopePayloadType) {
		return Neighbor{}, fmt.Errorf("payload type %x is not a peer record's", env.PayloadType)
	}
	if !rec.PeerID.MatchesPublicKey(env.PublicKey) {
		return Neighbor{}, fmt.Errorf("the record of %s is signed by someone else", rec.PeerID)
	}
	rec.Addrs = rec.Addrs[:min(len(rec.Addrs), MaxAddrs)]
	return Neighbor{Record: rec, Signed: s}, nil
}
