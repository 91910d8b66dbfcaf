package cli

import (
	"fmt"
	"time"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
)

// attemptJSON is one try to get a direct connection to a peer.
type attemptJSON struct {
	Time  *time.Time `json:"time"`
	Took  *float64   `json:"took_ms"`
	Role  string     `json:"role"`
	Met   []metJSON  `json:"met"`
	Error string     `json:"error"`
}

// metJSON is what the dials to one address met.
type metJSON struct {
	Addr  string   `json:"addr"`
	How   string   `json:"how"`
	Took  *float64 `json:"took_ms"`
	Error string   `json:"error"`
}

func attemptsOf(all []*control.Attempt) []attemptJSON {
	out := make([]attemptJSON, 0, len(all)) // no list is null
	for _, a := range all {
		v := attemptJSON{Time: moment(a.GetTime()), Took: millis(a.GetTook()), Role: a.GetRole(), Met: []metJSON{}, Error: a.GetError()}
		for _, m := range a.GetMet() {
			v.Met = append(v.Met, metJSON{Addr: m.GetAddr(), How: m.GetHow(), Took: millis(m.GetTook()), Error: m.GetError()})
		}
		out = append(out, v)
	}
	return out
}

// relayOf is who relays a connection; nil when nobody does.
func relayOf(s *control.Sender) *senderJSON {
	if s == nil {
		return nil
	}
	v := senderOf(s)
	return &v
}

// short is the peer's name, or the end of its ID, which is what IDs differ in.
func (s senderJSON) short() string {
	if name := s.label(); name != "" {
		return name
	}
	const tail = 6
	return "…" + s.ID[max(0, len(s.ID)-tail):]
}

// viaSince tells how the connection goes, and since when.
func (p peerJSON) viaSince() string {
	if p.PathSince == nil || p.via() == "" {
		return p.via()
	}
	return p.via() + ", since " + p.PathSince.Format(time.DateTime)
}

// pathRows say who relays, why the connection is not direct, and what was tried.
func (p peerInfoJSON) pathRows() (rows [][]string) {
	if p.Relay != nil {
		rows = append(rows, []string{"relay", p.Relay.text()})
	}
	if p.NotDirect != "" {
		rows = append(rows, []string{"not direct", p.NotDirect})
	}
	var tries []string
	for _, a := range p.Attempts {
		tries = append(tries, a.text())
		for _, m := range a.Met {
			tries = append(tries, "  "+m.text())
		}
	}
	return append(rows, column("attempts", tries)...)
}

func (a attemptJSON) text() string {
	when := "-"
	if a.Time != nil {
		when = a.Time.Format(time.TimeOnly)
	}
	if a.Error == "" {
		return fmt.Sprintf("%s  direct after %s", when, took(a.Took))
	}
	return fmt.Sprintf("%s  failed after %s: %s", when, took(a.Took), a.Error)
}

func (m metJSON) text() string {
	if m.Error == "" {
		return fmt.Sprintf("%s %s: connected after %s", m.How, m.Addr, took(m.Took))
	}
	return fmt.Sprintf("%s %s: %s after %s", m.How, m.Addr, m.Error, took(m.Took))
}

// took says how long something lasted, as exactly as anybody wants to know.
func took(ms *float64) string {
	if ms == nil {
		return "-"
	}
	return time.Duration(*ms * float64(time.Millisecond)).Round(time.Millisecond).String()
}
