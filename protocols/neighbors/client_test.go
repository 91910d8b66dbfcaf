package neighbors

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lynn9388/p2p/internal/virtual"
)

// disguised is a peer record that is sealed under another domain or type.
type disguised struct {
	*peer.PeerRecord
	domain string
	codec  []byte
}

func (d disguised) Domain() string { return d.domain }
func (d disguised) Codec() []byte  { return d.codec }

// bad returns records that do not hold, by what is wrong with them.
func bad(t *testing.T) map[string]*Record {
	t.Helper()
	mallory, victim := newIdentity(t), newIdentity(t)
	const at = "/ip4/192.0.2.66/tcp/1"
	honest := victim.seal(t, victim.record(1, at))
	forged := bytes.Clone(honest)
	forged[len(forged)-1] ^= 1 // the signature is last
	changed := bytes.Replace(bytes.Clone(honest), []byte{192, 0, 2, 66}, []byte{192, 0, 2, 67}, 1)
	if bytes.Equal(changed, honest) {
		t.Fatal("the address is not in the envelope")
	}
	large := victim.record(1)
	for i := range MaxEnvelope / 8 {
		large.Addrs = append(large.Addrs, victim.record(1, fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", i+1)).Addrs...)
	}
	return map[string]*Record{
		"empty":              {},
		"garbage":            {SignedEnvelope: []byte("garbage")},
		"truncated":          {SignedEnvelope: honest[:len(honest)-1]},
		"forged signature":   {SignedEnvelope: forged},
		"changed address":    {SignedEnvelope: changed},
		"another's signer":   {SignedEnvelope: mallory.seal(t, victim.record(1, at))},
		"another domain":     {SignedEnvelope: victim.seal(t, disguised{victim.record(1, at), "other", peer.PeerRecordEnvelopePayloadType})},
		"another type":       {SignedEnvelope: victim.seal(t, disguised{victim.record(1, at), peer.PeerRecordEnvelopeDomain, []byte{9}})},
		"expired":            {SignedEnvelope: honest, AgeSeconds: uint32(MaxAge/time.Second) + 1},
		"older than it gets": {SignedEnvelope: honest, AgeSeconds: 1<<32 - 1},
		"oversize":           {SignedEnvelope: victim.seal(t, large)},
	}
}

func TestAsk_DropsRecordsThatDoNotHold(t *testing.T) {
	for name, r := range bad(t) {
		t.Run(name, func(t *testing.T) {
			if got, err := askFor(t, r); !errors.Is(err, ErrAnswer) || got != nil {
				t.Errorf("alone: got %v, %v; want ErrAnswer", got, err)
			}
			id, other := good(t)
			got, err := askFor(t, r, other)
			if err != nil {
				t.Fatalf("beside one that holds: %v", err)
			}
			if len(got) != 1 || got[0].Record.PeerID != id {
				t.Errorf("beside one that holds: got %v, want only that one", got)
			}
		})
	}
}

func TestAsk_ReturnsWhatHolds(t *testing.T) {
	id, r := good(t)
	got, err := askFor(t, r)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 {
		t.Fatalf("got %d neighbors, want 1", len(got))
	}
	n := got[0]
	if n.Record.PeerID != id || n.Record.Seq != 1 || len(n.Record.Addrs) != 1 ||
		n.Record.Addrs[0].String() != "/ip4/192.0.2.1/tcp/9388" {
		t.Errorf("record = %v", n.Record)
	}
	if n.Age != 5*time.Second || !bytes.Equal(n.Envelope, r.GetSignedEnvelope()) {
		t.Errorf("age %v, envelope %x", n.Age, n.Envelope)
	}
}

func TestAsk_EmptyAnswer(t *testing.T) {
	if got, err := askFor(t); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v; want nothing", got, err)
	}
}

func TestAsk_RefusesTooManyRecords(t *testing.T) {
	_, r := good(t)
	if _, err := askFor(t, slices.Repeat([]*Record{r}, MaxRecords+1)...); !errors.Is(err, ErrAnswer) {
		t.Errorf("%d records: %v, want ErrAnswer", MaxRecords+1, err)
	}
	if _, err := askFor(t, slices.Repeat([]*Record{r}, MaxRecords)...); err != nil {
		t.Errorf("%d records: %v", MaxRecords, err)
	}
}

func TestAsk_RefusesMoreThanItWanted(t *testing.T) {
	_, a := good(t)
	_, b := good(t)
	cc, stop := dial(t, func(s *grpc.Server) { RegisterNeighborServiceServer(s, answer{records: []*Record{a, b}}) })
	defer stop()
	if _, err := Ask(t.Context(), cc, 1); !errors.Is(err, ErrAnswer) {
		t.Errorf("two records for one: %v, want ErrAnswer", err)
	}
	if got, err := Ask(t.Context(), cc, 2); err != nil || len(got) != 2 {
		t.Errorf("two records for two: %v, %v", got, err)
	}
}

func TestAsk_RefusesTooManyBytes(t *testing.T) {
	_, r := good(t)
	padded := slices.Repeat([]*Record{{SignedEnvelope: make([]byte, MaxEnvelope)}}, MaxTotal/MaxEnvelope)
	if _, err := askFor(t, append(padded, r)...); !errors.Is(err, ErrAnswer) {
		t.Errorf("more than %d bytes: %v, want ErrAnswer", MaxTotal, err)
	}
	huge := &Record{SignedEnvelope: make([]byte, 2*maxAnswer)}
	if _, err := askFor(t, huge); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("an answer of %d bytes: %v, want ResourceExhausted", 2*maxAnswer, err)
	}
}

func TestAsk_KeepsThePeersNewestRecord(t *testing.T) {
	i := newIdentity(t)
	at := func(seq uint64) *Record { return &Record{SignedEnvelope: i.seal(t, i.record(seq))} }
	got, err := askFor(t, at(2), at(3), at(1))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Record.Seq != 3 {
		t.Errorf("got %v, want only the record with number 3", got)
	}
}

func TestAsk_CutsAddresses(t *testing.T) {
	i := newIdentity(t)
	var addrs []string
	for n := range MaxAddrs + 1 {
		addrs = append(addrs, fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", n+1))
	}
	got, err := askFor(t, &Record{SignedEnvelope: i.seal(t, i.record(1, addrs...))})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got[0].Record.Addrs); n != MaxAddrs {
		t.Errorf("%d addresses, want %d", n, MaxAddrs)
	}
}

func TestAsk_GivesUpWithoutADeadline(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		cc, stop := dial(t, func(s *grpc.Server) { RegisterNeighborServiceServer(s, answer{delay: time.Hour}) })
		defer stop()
		start := time.Now()
		_, err := Ask(t.Context(), cc, 0)
		if status.Code(err) != codes.DeadlineExceeded || !strings.HasPrefix(err.Error(), "neighbors: ask: ") {
			t.Errorf("error %v, want DeadlineExceeded", err)
		}
		if d := time.Since(start); d != timeout {
			t.Errorf("gave up after %v, want %v", d, timeout)
		}
	})
}

func FuzzVerifyAll(f *testing.F) {
	_, a := good(f)
	_, b := good(f)
	for _, res := range []*NeighborsResponse{{}, {Records: []*Record{a}}, {Records: []*Record{b, a, b}}, {Records: []*Record{{}}}} {
		data, err := proto.Marshal(res)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var res NeighborsResponse
		if proto.Unmarshal(data, &res) != nil {
			return
		}
		signed, err := within(res.GetRecords(), MaxRecords)
		if err != nil {
			return
		}
		got, err := verifyAll(signed)
		if err != nil && got != nil {
			t.Error("neighbors beside an error")
		}
		if len(got) > MaxRecords {
			t.Errorf("%d neighbors", len(got))
		}
		for _, n := range got {
			again, err := verify(n.Signed)
			if err != nil {
				t.Fatal(err)
			}
			if !again.Record.Equal(&n.Record) || !cmp.Equal(again.Signed, n.Signed) {
				t.Errorf("%v, then %v", n, again)
			}
		}
	})
}
