package neighbors

import (
	"context"
	"crypto/rand"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial serves what register registers in memory and returns a channel to it, and what ends both.
func dial(tb testing.TB, register func(*grpc.Server)) (cc *grpc.ClientConn, stop func()) {
	tb.Helper()
	lis := bufconn.Listen(1 << 16)
	srv := grpc.NewServer()
	register(srv)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	cc, err := grpc.NewClient("passthrough:///memory",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		tb.Fatal(err)
	}
	return cc, func() {
		_ = cc.Close()
		srv.Stop()
		if err := <-served; err != nil {
			tb.Error(err)
		}
	}
}

// an answer is a server that always says the same.
type answer struct {
	UnimplementedNeighborServiceServer
	records []*Record
	delay   time.Duration
}

func (a answer) Neighbors(ctx context.Context, _ *NeighborsRequest) (*NeighborsResponse, error) {
	if a.delay > 0 {
		select {
		case <-time.After(a.delay):
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	return &NeighborsResponse{Records: a.records}, nil
}

func (a answer) FindService(context.Context, *FindServiceRequest) (*FindServiceResponse, error) {
	return &FindServiceResponse{Records: a.records}, nil
}

// askFor asks a server that answers with records.
func askFor(t *testing.T, records ...*Record) ([]Neighbor, error) {
	t.Helper()
	cc, stop := dial(t, func(s *grpc.Server) { RegisterNeighborServiceServer(s, answer{records: records}) })
	defer stop()
	return Ask(t.Context(), cc, 0)
}

// an identity is a peer that signs records.
type identity struct {
	key crypto.PrivKey
	id  peer.ID
}

func newIdentity(tb testing.TB) identity {
	tb.Helper()
	key, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		tb.Fatal(err)
	}
	return identity{key: key, id: id}
}

// record returns the peer's own record.
func (i identity) record(seq uint64, addrs ...string) *peer.PeerRecord {
	rec := &peer.PeerRecord{PeerID: i.id, Seq: seq}
	for _, a := range addrs {
		rec.Addrs = append(rec.Addrs, ma.StringCast(a))
	}
	return rec
}

// seal signs rec with the peer's key.
func (i identity) seal(tb testing.TB, rec record.Record) []byte {
	tb.Helper()
	env, err := record.Seal(rec, i.key)
	if err != nil {
		tb.Fatal(err)
	}
	data, err := env.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// good returns a record that holds, of a new peer.
func good(tb testing.TB) (peer.ID, *Record) {
	tb.Helper()
	i := newIdentity(tb)
	return i.id, &Record{SignedEnvelope: i.seal(tb, i.record(1, "/ip4/192.0.2.1/tcp/9388")), AgeSeconds: 5}
}
