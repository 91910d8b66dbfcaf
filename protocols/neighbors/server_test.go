package neighbors

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p/internal/virtual"
)

// config serves records to an asker named "asker".
func config(records ...Signed) Config {
	return Config{
		Source: SourceFunc(func(context.Context, int, peer.ID) []Signed { return records }),
		Asker:  func(context.Context) (peer.ID, bool) { return "asker", true },
	}
}

// serve serves cfg and returns a client for it.
func serve(t *testing.T, cfg Config) (NeighborServiceClient, func()) {
	t.Helper()
	cc, stop := dial(t, func(s *grpc.Server) { Register(s, cfg) })
	return NewNeighborServiceClient(cc), stop
}

func TestRegister_AskGetsTheSourcesRecords(t *testing.T) {
	id, r := good(t)
	var gotMax int
	var gotAsker peer.ID
	cfg := config()
	cfg.Source = SourceFunc(func(_ context.Context, n int, asker peer.ID) []Signed {
		gotMax, gotAsker = n, asker
		return []Signed{{Envelope: r.GetSignedEnvelope(), Age: 1500 * time.Millisecond}}
	})
	cc, stop := dial(t, func(s *grpc.Server) { Register(s, cfg) })
	defer stop()
	got, err := Ask(t.Context(), cc, 7)
	if err != nil {
		t.Fatal(err)
	}
	if gotMax != 7 || gotAsker != "asker" {
		t.Errorf("the source was asked for %d records by %q", gotMax, gotAsker)
	}
	if len(got) != 1 || got[0].Record.PeerID != id || got[0].Age != time.Second {
		t.Errorf("got %v", got)
	}
}

func TestRegister_NeedsSourceAndAsker(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no source": {Asker: config().Asker},
		"no asker":  {Source: config().Source},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if s, _ := recover().(string); !strings.HasPrefix(s, "neighbors: ") {
					t.Errorf("panic %q", s)
				}
			}()
			Register(grpc.NewServer(), cfg)
		})
	}
}

func TestNeighbors_BoundsTheAnswer(t *testing.T) {
	rec := func(size int, age time.Duration) Signed { return Signed{Envelope: make([]byte, size), Age: age} }
	many := func(n, size int) (out []Signed) {
		for range n {
			out = append(out, rec(size, 0))
		}
		return out
	}
	for _, tt := range []struct {
		name    string
		records []Signed
		max     uint32
		want    int
	}{
		{"none", nil, 0, 0},
		{"no number", many(40, 10), 0, MaxRecords},
		{"a small number", many(40, 10), 3, 3},
		{"a large number", many(40, 10), 1<<32 - 1, MaxRecords},
		{"an empty envelope", many(1, 0), 0, 0},
		{"the largest envelope", many(1, MaxEnvelope), 0, 1},
		{"a larger envelope", many(1, MaxEnvelope+1), 0, 0},
		{"the sum", many(MaxRecords, MaxEnvelope), 0, MaxTotal / MaxEnvelope},
		{"the oldest", []Signed{rec(1, MaxAge)}, 0, 1},
		{"an older one", []Signed{rec(1, MaxAge+1), rec(1, 0)}, 0, 1},
		{"one from the future", []Signed{rec(1, -time.Hour)}, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, stop := serve(t, config(tt.records...))
			defer stop()
			res, err := client.Neighbors(t.Context(), &NeighborsRequest{Max: tt.max})
			if err != nil {
				t.Fatal(err)
			}
			if got := len(res.GetRecords()); got != tt.want {
				t.Errorf("%d records, want %d", got, tt.want)
			}
			for _, r := range res.GetRecords() {
				if r.GetAgeSeconds() > uint32(MaxAge/time.Second) {
					t.Errorf("age %d s", r.GetAgeSeconds())
				}
			}
		})
	}
}

func TestNeighbors_RefusesAnUnknownAsker(t *testing.T) {
	cfg := config()
	cfg.Asker = func(context.Context) (peer.ID, bool) { return "", false }
	client, stop := serve(t, cfg)
	defer stop()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "sender", "asker")
	if _, err := client.Neighbors(ctx, &NeighborsRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("error %v, want Unauthenticated", err)
	}
}

func TestNeighbors_LimitsTheRateOfAnAsker(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		asker := peer.ID("a")
		cfg := config()
		cfg.Asker = func(context.Context) (peer.ID, bool) { return asker, true }
		cfg.Every, cfg.Burst = time.Second, 3
		client, stop := serve(t, cfg)
		defer stop()
		ask := func() codes.Code {
			_, err := client.Neighbors(t.Context(), &NeighborsRequest{})
			return status.Code(err)
		}
		for i := range 3 {
			if c := ask(); c != codes.OK {
				t.Fatalf("call %d: %v", i+1, c)
			}
		}
		if c := ask(); c != codes.ResourceExhausted {
			t.Errorf("one call too many: %v, want ResourceExhausted", c)
		}
		asker = "b"
		if c := ask(); c != codes.OK {
			t.Errorf("another asker: %v", c)
		}
		asker = "a"
		time.Sleep(time.Second) // of the bubble's clock
		if c := ask(); c != codes.OK {
			t.Errorf("a second later: %v", c)
		}
		if c := ask(); c != codes.ResourceExhausted {
			t.Errorf("twice a second later: %v, want ResourceExhausted", c)
		}
	})
}
