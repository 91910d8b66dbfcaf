package cli

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
)

const (
	someID  = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
	otherID = "12D3KooWRrNnNfVdUWi9vd6QMoGwhAbv8i7GEB1mjuV1hLLuFs1d"
)

// nasty is what a hostile peer would call itself.
const nasty = "a\x1b[2J\nshare: evil\u202e\u009b"

func hostile() *control.Peer {
	return &control.Peer{
		Id: someID, Name: nasty, State: "neighbor", Addrs: []string{nasty}, Path: nasty, Transport: nasty, Rtt: durationpb.New(1500 * time.Microsecond),
		Services: []string{nasty}, Source: nasty, Version: nasty, Since: timestamppb.New(time.Unix(0, 0)), LastError: nasty,
		Relay: &control.Sender{Id: nasty, Name: nasty, PinnedName: nasty}, PathSince: timestamppb.New(time.Unix(0, 0)), NotDirect: nasty,
	}
}

func hostileAttempts() []*control.Attempt {
	return []*control.Attempt{
		{Time: timestamppb.Now(), Took: durationpb.New(time.Second), Role: nasty, Error: nasty, Met: []*control.Met{{Addr: nasty, How: nasty, Error: nasty}}},
		{Met: []*control.Met{{Addr: nasty, How: nasty}}},
	}
}

// requireSafe fails for what a terminal obeys, and for lines that the program did not begin.
func requireSafe(t *testing.T, got string) {
	t.Helper()
	if i := strings.IndexFunc(got, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("unsafe character at %d in %q", i, got)
	}
	if strings.Contains(got, "\nshare:") {
		t.Errorf("a peer began a line: %q", got)
	}
}

// shown returns what print prints as a table and as JSON.
func shown(t *testing.T, print func(out *output.Printer) error) (table, doc string) {
	t.Helper()
	var texts []string
	for _, format := range []string{output.Table, output.JSON} {
		var b strings.Builder
		out, err := output.New(&b, format)
		if err != nil {
			t.Fatal(err)
		}
		if err := print(out); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, b.String())
	}
	return texts[0], texts[1]
}

func TestPrintPeers_HostilePeer(t *testing.T) {
	table, doc := shown(t, func(out *output.Printer) error { return printPeers(out, []*control.Peer{hostile()}) })
	requireSafe(t, table)
	requireSafe(t, doc)
	var back []peerJSON
	if err := json.Unmarshal([]byte(doc), &back); err != nil {
		t.Fatal(err)
	}
	requireSafe(t, back[0].Name+back[0].Version+back[0].Source+back[0].LastError+back[0].Addrs[0]+back[0].Services[0])
	if strings.Count(table, "\n") != 2 {
		t.Errorf("one peer in other than two lines: %q", table)
	}
}

func TestPrintInfo_HostilePeer(t *testing.T) {
	v := peerInfoOf(&control.GetPeerResponse{Peer: hostile(), Error: nasty, StartTime: timestamppb.Now(), Attempts: hostileAttempts()})
	table, doc := shown(t, func(out *output.Printer) error { return out.Print(v, nil, v.rows()) })
	requireSafe(t, table)
	requireSafe(t, doc)
}

func TestPrintStatus_HostileDiagnosis(t *testing.T) {
	s := statusOf(&control.StatusResponse{Id: someID, Diagnosis: []string{nasty}, Reachability: &control.Reachability{
		State: nasty, UdpMapping: nasty, TcpMapping: nasty, Filtering: nasty, Observed: []string{nasty}, Reached: []string{nasty},
		Relays: []*control.Relay{{Peer: &control.Sender{Id: nasty, Name: nasty}, Addrs: []string{nasty}, Connected: []string{nasty}, LastError: nasty}},
	}})
	table, doc := shown(t, func(out *output.Printer) error { return out.Print(s, nil, s.rows()) })
	requireSafe(t, table)
	requireSafe(t, doc)
}

func TestPrintEvent_HostilePeer(t *testing.T) {
	id, err := peer.Decode(someID)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	out, err := output.New(&b, output.Table)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{out: out}
	for _, kind := range []p2p.PeerEventKind{p2p.PeerJoined, p2p.ServiceAdded, p2p.PeerUnreachable, p2p.PeerPathChanged, p2p.PeerLeft} {
		e := p2p.PeerEvent{Kind: kind, Peer: p2p.PeerInfo{ID: id, Name: nasty, Transport: nasty}, Service: nasty, Err: errors.New(nasty)}
		if err := s.printEvent(newSeen(), e); err != nil {
			t.Fatal(err)
		}
	}
	requireSafe(t, b.String())
	if n := strings.Count(b.String(), "\n"); n != 5 {
		t.Errorf("five events in %d lines: %q", n, b.String())
	}
}

func TestPrintEvent_NothingTwice(t *testing.T) {
	id, err := peer.Decode(someID)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	out, err := output.New(&b, output.Table)
	if err != nil {
		t.Fatal(err)
	}
	s, seen := &session{out: out}, newSeen()
	p := p2p.PeerInfo{ID: id, Name: "bob", State: p2p.StateNeighbor, Services: []string{"a.S"}}
	if err := s.printPresent(seen, p); err != nil {
		t.Fatal(err)
	}
	for _, e := range []p2p.PeerEvent{
		{Kind: p2p.PeerFound, Peer: p}, // with -v only
		{Kind: p2p.PeerJoined, Peer: p},
		{Kind: p2p.ServiceAdded, Peer: p, Service: "a.S"},
		{Kind: p2p.ServiceRemoved, Peer: p, Service: "a.S"},
		{Kind: p2p.PeerLeft, Peer: p},
		{Kind: p2p.PeerJoined, Peer: p},
	} {
		if err := s.printEvent(seen, e); err != nil {
			t.Fatal(err)
		}
	}
	var kinds []string
	for l := range strings.Lines(b.String()) {
		kinds = append(kinds, strings.Fields(l)[1])
	}
	if diff := cmp.Diff([]string{"joined", "service", "service", "left", "joined"}, kinds); diff != "" {
		t.Errorf("%s\n%s", diff, b.String())
	}
}

func TestLabel(t *testing.T) {
	for _, tc := range []struct {
		p    peerJSON
		want string
	}{
		{peerJSON{}, ""},
		{peerJSON{Name: "bob"}, "(bob)"},
		{peerJSON{Name: "bob", PinnedName: "alice"}, "alice"},
	} {
		if got := tc.p.label(); got != tc.want {
			t.Errorf("%+v: got %q, want %q", tc.p, got, tc.want)
		}
	}
}

// TestPeerJSON_Shape holds the documented shape: a program that reads it must not break.
func TestPeerJSON_Shape(t *testing.T) {
	got, err := json.Marshal(peerOf(&control.Peer{Id: someID}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"` + someID + `","name":"","pinned_name":"","state":"","addrs":[],"path":"","relay":null,"path_since":null,` +
		`"not_direct":"","transport":"","rtt_ms":null,"services":[],"source":"","version":"","since":null,"last_error":""}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	got, err = json.Marshal(peerInfoOf(&control.GetPeerResponse{}))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(got), `"last_error":"","answered":false,"error":"","start_time":null,"attempts":[]}`) {
		t.Errorf("got %s", got)
	}
}

func TestPrintPeers_Nobody(t *testing.T) {
	table, doc := shown(t, func(out *output.Printer) error { return printPeers(out, nil) })
	if !strings.Contains(table, "p2p status") {
		t.Errorf("got %q", table)
	}
	if doc != "[]\n" {
		t.Errorf("got %q", doc)
	}
}
