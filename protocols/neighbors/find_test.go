package neighbors

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p/internal/virtual"
)

// catalogOf serves records of those who offer "a.Service" to an asker named "asker".
func catalogOf(records ...*Record) Config {
	cfg := config()
	cfg.Catalog = func(_ context.Context, service string, _ int, asker peer.ID) (out []Signed) {
		if service != "a.Service" || asker != "asker" {
			return nil
		}
		for _, r := range records {
			out = append(out, Signed{Envelope: r.GetSignedEnvelope()})
		}
		return out
	}
	return cfg
}

// findAt asks a server of cfg who offers a service.
func findAt(t *testing.T, cfg Config, service string, most int) ([]Neighbor, error) {
	t.Helper()
	cc, stop := dial(t, func(s *grpc.Server) { Register(s, cfg) })
	defer stop()
	return Find(t.Context(), cc, service, most)
}

func TestFind_GetsTheCatalogsRecords(t *testing.T) {
	id, r := good(t)
	got, err := findAt(t, catalogOf(r), "a.Service", 0)
	if err != nil || len(got) != 1 || got[0].Record.PeerID != id {
		t.Errorf("got %v, %v", got, err)
	}
	for what, cfg := range map[string]Config{"another service": catalogOf(r), "no catalog": config()} {
		service := "a.Service"
		if what == "another service" {
			service = "b.Service"
		}
		if got, err := findAt(t, cfg, service, 0); err != nil || len(got) != 0 {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
}

func TestFind_ForgedRecordsAreDropped(t *testing.T) {
	for name, r := range bad(t) {
		id, other := good(t)
		cc, stop := dial(t, func(s *grpc.Server) { RegisterNeighborServiceServer(s, answer{records: []*Record{r, other}}) })
		got, err := Find(t.Context(), cc, "a.Service", 0)
		stop()
		if err != nil || len(got) != 1 || got[0].Record.PeerID != id {
			t.Errorf("%s: got %v, %v; want only the record that holds", name, got, err)
		}
	}
}

func TestFind_IsBounded(t *testing.T) {
	_, r := good(t)
	cc, stop := dial(t, func(s *grpc.Server) {
		RegisterNeighborServiceServer(s, answer{records: slices.Repeat([]*Record{r}, MaxRecords+1)})
	})
	defer stop()
	if _, err := Find(t.Context(), cc, "a.Service", 0); !errors.Is(err, ErrAnswer) {
		t.Errorf("too many records: %v, want ErrAnswer", err)
	}
	many := make([]*Record, 0, 2*MaxRecords)
	for range 2 * MaxRecords {
		_, r := good(t)
		many = append(many, r)
	}
	if got, err := findAt(t, catalogOf(many...), "a.Service", 3); err != nil || len(got) != 3 {
		t.Errorf("%d records for 3, %v", len(got), err)
	}
	for _, name := range []string{"", strings.Repeat("x", MaxService+1)} {
		if _, err := findAt(t, catalogOf(r), name, 0); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a name of %d bytes: %v, want InvalidArgument", len(name), err)
		}
	}
}

func TestFind_LimitsTheRateOfAnAsker(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		cfg := catalogOf()
		cfg.Every, cfg.Burst = time.Second, 2
		client, stop := serve(t, cfg)
		defer stop()
		find := func() codes.Code {
			_, err := client.FindService(t.Context(), &FindServiceRequest{Service: "a.Service"})
			return status.Code(err)
		}
		for i, want := range []codes.Code{codes.OK, codes.OK, codes.ResourceExhausted} {
			if got := find(); got != want {
				t.Errorf("call %d: %v, want %v", i, got, want)
			}
		}
		// The other question has a rate of its own.
		if _, err := client.Neighbors(t.Context(), &NeighborsRequest{}); err != nil {
			t.Errorf("Neighbors: %v", err)
		}
		time.Sleep(time.Second)
		if got := find(); got != codes.OK {
			t.Errorf("a second later: %v", got)
		}
		cfg.Asker = func(context.Context) (peer.ID, bool) { return "", false }
		nobody, end := serve(t, cfg)
		defer end()
		if _, err := nobody.FindService(t.Context(), &FindServiceRequest{Service: "a.Service"}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("an unknown asker: %v", err)
		}
	})
}
