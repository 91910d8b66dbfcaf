package cli

import (
	"net"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
)

// peerJSON is a peer in JSON, the same in all commands.
type peerJSON struct {
	ID         string      `json:"id"`
	Name       string      `json:"name"`
	PinnedName string      `json:"pinned_name"`
	State      string      `json:"state"`
	Addrs      []string    `json:"addrs"`
	Path       string      `json:"path"`
	Relay      *senderJSON `json:"relay"`
	PathSince  *time.Time  `json:"path_since"`
	NotDirect  string      `json:"not_direct"`
	Transport  string      `json:"transport"`
	RTT        *float64    `json:"rtt_ms"`
	Services   []string    `json:"services"`
	Source     string      `json:"source"`
	Version    string      `json:"version"`
	Since      *time.Time  `json:"since"`
	LastError  string      `json:"last_error"`
}

// peerOf makes all that a peer chose safe to print, once for the table and for JSON.
func peerOf(p *control.Peer) peerJSON {
	v := peerJSON{
		ID: p.GetId(), Name: p.GetName(), PinnedName: p.GetPinnedName(), State: p.GetState(), Addrs: list(p.GetAddrs()),
		Path: p.GetPath(), Transport: p.GetTransport(), RTT: millis(p.GetRtt()), Services: list(p.GetServices()),
		Source: p.GetSource(), Version: p.GetVersion(), Since: moment(p.GetSince()), LastError: p.GetLastError(),
		Relay: relayOf(p.GetRelay()), PathSince: moment(p.GetPathSince()), NotDirect: p.GetNotDirect(),
	}
	if clean, ok := output.Clean(v).(peerJSON); ok {
		return clean
	}
	return peerJSON{ID: p.GetId()}
}

func millis(d *durationpb.Duration) *float64 {
	if d == nil {
		return nil
	}
	ms := float64(d.AsDuration().Microseconds()) / 1000
	return &ms
}

func moment(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	at := t.AsTime().Local()
	return &at
}

func (p peerJSON) label() string { return label(p.PinnedName, p.Name) }

// address is where the peer is, short. A peer that dialed from a port of the moment is shown with the address at the same
// host at which it listens, if that is known.
func (p peerJSON) address() string {
	if len(p.Addrs) == 0 {
		return ""
	}
	first := shortAddr(p.Addrs[0])
	host, _, err := net.SplitHostPort(first)
	if err != nil {
		return first
	}
	for _, a := range p.Addrs[1:] {
		short := shortAddr(a)
		if h, _, err := net.SplitHostPort(short); err == nil && h == host {
			return short
		}
	}
	return first
}

func (p peerJSON) rtt() string { return duration(p.RTT) }

func peerHeader() []string {
	return []string{"STATE", "NAME", "ID", "ADDRESS", "VIA", "RTT", "SERVICES", "FOUND BY"}
}

func (p peerJSON) row() []string {
	return []string{p.State, or(p.label()), p.ID, or(p.address()), or(p.via()), or(p.rtt()), or(summary(p.Services)), or(p.Source)}
}

// via tells how the connection goes.
func (p peerJSON) via() string { return via(p.Path, p.Transport, p.Relay) }

// via tells how a connection goes: "tcp", "relay (hub) quic-v1".
func via(path, transport string, relay *senderJSON) string {
	if path == "" || path == direct {
		return transport
	}
	parts := []string{path}
	if relay != nil {
		parts = append(parts, relay.short())
	}
	return strings.TrimSpace(strings.Join(append(parts, transport), " "))
}

func or(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// summary is a list that fits a column.
func summary(s []string) string {
	const most = 3
	if len(s) > most {
		return strings.Join(s[:most], ",") + ",…"
	}
	return strings.Join(s, ",")
}

// peerInfoJSON is what "p2p peers info -o json" prints.
type peerInfoJSON struct {
	peerJSON
	Answered  bool          `json:"answered"`
	Error     string        `json:"error"`
	StartTime *time.Time    `json:"start_time"`
	Attempts  []attemptJSON `json:"attempts"`
}

func peerInfoOf(res *control.GetPeerResponse) peerInfoJSON {
	return peerInfoJSON{
		peerJSON: peerOf(res.GetPeer()), Answered: res.GetAnswered(), Error: res.GetError(), StartTime: moment(res.GetStartTime()),
		Attempts: attemptsOf(res.GetAttempts()),
	}
}

func (p peerInfoJSON) rows() [][]string {
	answers := "yes"
	if !p.Answered {
		answers = "no: " + p.Error
	}
	rows := [][]string{
		{"id", p.ID},
		{"name", or(p.label())},
		{"state", or(p.State)},
		{"answers", answers},
		{"via", or(p.viaSince())},
		{"round trip", or(p.rtt())},
		{"found by", or(p.Source)},
		{"version", or(p.Version)},
	}
	if p.StartTime != nil {
		rows = append(rows, []string{"running", "since " + p.StartTime.Format(time.DateTime)})
	}
	if p.Since != nil {
		rows = append(rows, []string{p.State, "since " + p.Since.Format(time.DateTime)})
	}
	if p.LastError != "" {
		rows = append(rows, []string{"last error", p.LastError})
	}
	rows = append(rows, p.pathRows()...)
	return append(append(rows, column("addresses", p.Addrs)...), column("services", p.Services)...)
}

// eventJSON is an event in JSON.
type eventJSON struct {
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`
	Peer    peerJSON  `json:"peer"`
	Service string    `json:"service"`
	Error   string    `json:"error"`
}

func eventOf(res *control.WatchPeersResponse) eventJSON {
	e := eventJSON{Time: res.GetTime().AsTime().Local(), Kind: res.GetKind(), Peer: peerOf(res.GetPeer()), Service: res.GetService(), Error: res.GetError()}
	if e.Kind == "" {
		e.Kind = "present"
	}
	return e
}

// text is the event in words.
func (e eventJSON) text() string {
	parts := []string{e.Kind}
	for _, s := range []string{e.Service, e.Peer.label(), e.Peer.ID, e.Peer.address(), e.Peer.via()} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if e.Error != "" {
		parts = append(parts, "- "+e.Error)
	}
	return strings.Join(parts, "  ")
}
