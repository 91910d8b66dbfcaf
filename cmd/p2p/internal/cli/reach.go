package cli

import (
	"strings"
	"time"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
	"github.com/lynn9388/p2p/host/reach"
)

// reachJSON is how a node is reached across NATs.
type reachJSON struct {
	State      string      `json:"state"`
	UDPMapping string      `json:"udp_mapping"`
	TCPMapping string      `json:"tcp_mapping"`
	Filtering  string      `json:"filtering"`
	Observed   []string    `json:"observed"`
	Reached    []string    `json:"reached"`
	Relays     []relayJSON `json:"relays"`
}

// relayJSON is what a node knows of one of its relays.
type relayJSON struct {
	senderJSON
	Addrs      []string   `json:"addrs"`
	Connected  []string   `json:"connected"`
	Since      *time.Time `json:"since"`
	RTT        *float64   `json:"rtt_ms"`
	Reserved   bool       `json:"reserved"`
	Expires    *time.Time `json:"expires"`
	LimitBytes uint64     `json:"limit_bytes"`
	LimitTime  *float64   `json:"limit_ms"`
	LastError  string     `json:"last_error"`
}

func reachOf(r *control.Reachability) *reachJSON {
	if r == nil {
		return nil
	}
	v := &reachJSON{
		State: r.GetState(), UDPMapping: r.GetUdpMapping(), TCPMapping: r.GetTcpMapping(), Filtering: r.GetFiltering(),
		Observed: list(r.GetObserved()), Reached: list(r.GetReached()), Relays: []relayJSON{},
	}
	for _, relay := range r.GetRelays() {
		v.Relays = append(v.Relays, relayJSON{
			senderJSON: senderOf(relay.GetPeer()), Addrs: list(relay.GetAddrs()), Connected: list(relay.GetConnected()),
			Since: moment(relay.GetSince()), RTT: millis(relay.GetRtt()), Reserved: relay.GetReserved(), Expires: moment(relay.GetExpires()),
			LimitBytes: relay.GetLimitData(), LimitTime: millis(relay.GetLimitDuration()), LastError: relay.GetLastError(),
		})
	}
	if clean, ok := output.Clean(v).(*reachJSON); ok {
		return clean
	}
	return &reachJSON{}
}

// rows are the lines of "p2p status"; none without anything to tell.
func (r *reachJSON) rows() [][]string {
	if r == nil {
		return nil
	}
	rows := [][]string{{"reached", r.text()}}
	if nat := r.nat(); nat != "" {
		rows = append(rows, []string{"nat", nat})
	}
	rows = append(rows, column("seen at", r.Observed)...)
	rows = append(rows, column("reached at", r.Reached)...)
	var relays []string
	for _, relay := range r.Relays {
		relays = append(relays, relay.text())
	}
	return append(rows, column("relays", relays)...)
}

func (r *reachJSON) text() string {
	reserved := 0
	for _, relay := range r.Relays {
		if relay.Reserved {
			reserved++
		}
	}
	switch {
	case r.State == "public":
		return "directly: a relay came in from outside"
	case reserved > 0:
		return "through " + count(int64(reserved), "relay") + ", until a direct connection is there"
	case len(r.Relays) == 0:
		return "where its addresses are: there is no relay to ask or to go through"
	default:
		return "by nobody beyond the local network: no relay carries for it"
	}
}

// nat is the kind of the NAT in between, in words.
func (r *reachJSON) nat() string {
	var parts []string
	switch {
	case r.UDPMapping == r.TCPMapping && r.UDPMapping != unknownKind:
		parts = append(parts, kindText(r.UDPMapping))
	case r.UDPMapping != r.TCPMapping:
		parts = append(parts, "UDP: "+kindText(r.UDPMapping), "TCP: "+kindText(r.TCPMapping))
	}
	if r.Filtering != unknownKind && r.Filtering != "" {
		parts = append(parts, r.Filtering)
	}
	return strings.Join(parts, ", ")
}

// unknownKind is what a kind of NAT is called that no relay has told.
const unknownKind = "unknown"

// kindText is a kind of NAT in words.
func kindText(kind string) string {
	if kind == reach.MappingSomeNAT.String() {
		return "there is one, of which kind one relay alone cannot tell"
	}
	return kind
}

func (r relayJSON) text() string {
	parts := []string{r.senderJSON.text()}
	switch {
	case len(r.Connected) == 0 && r.Since != nil:
		parts = append(parts, "lost at "+r.Since.Format(time.TimeOnly))
	case len(r.Connected) == 0:
		parts = append(parts, "not connected")
	default:
		parts = append(parts, strings.Join(r.Connected, "+"))
	}
	if r.RTT != nil {
		parts = append(parts, "round trip "+duration(r.RTT))
	}
	if r.Reserved {
		parts = append(parts, "carries "+r.limits())
	}
	if r.LastError != "" {
		parts = append(parts, r.LastError)
	}
	return strings.Join(parts, ", ")
}

// limits says how much and how long the relay carries one connection.
func (r relayJSON) limits() string {
	data := "any amount"
	if r.LimitBytes > 0 {
		data = "up to " + size(r.LimitBytes)
	}
	if r.LimitTime == nil {
		return data + " a connection"
	}
	return data + " and " + time.Duration(*r.LimitTime*float64(time.Millisecond)).Round(time.Second).String() + " a connection"
}
