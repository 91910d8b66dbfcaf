package cli

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"time"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
)

// senderJSON is who offers, published or answered something.
type senderJSON struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	PinnedName string `json:"pinned_name"`
}

func senderOf(s *control.Sender) senderJSON {
	v := senderJSON{ID: s.GetId(), Name: s.GetName(), PinnedName: s.GetPinnedName()}
	if clean, ok := output.Clean(v).(senderJSON); ok {
		return clean
	}
	return senderJSON{ID: s.GetId()}
}

func (s senderJSON) label() string { return label(s.PinnedName, s.Name) }

// text is the peer's name, if it has one, and its ID.
func (s senderJSON) text() string { return strings.TrimSpace(s.label() + "  " + s.ID) }

// label is a peer's name: as it was pinned, or in parentheses what it calls itself.
func label(pinned, name string) string {
	switch {
	case pinned != "":
		return pinned
	case name != "":
		return "(" + name + ")"
	default:
		return ""
	}
}

// instanceJSON is an instance of a service in JSON, the same in all commands.
type instanceJSON struct {
	senderJSON
	Self     bool        `json:"self"`
	Tags     []string    `json:"tags"`
	Health   string      `json:"health"`
	Path     string      `json:"path"`
	Relay    *senderJSON `json:"relay"`
	RTT      *float64    `json:"rtt_ms"`
	InFlight int         `json:"in_flight"`
	Aside    *time.Time  `json:"set_aside_until"`
}

func instanceOf(i *control.Instance) instanceJSON {
	return instanceJSON{
		senderJSON: senderOf(i.GetPeer()), Self: i.GetSelf(), Tags: list(i.GetTags()), Health: i.GetHealth(), Path: i.GetPath(),
		Relay: relayOf(i.GetRelay()), RTT: millis(i.GetRtt()), InFlight: int(i.GetInFlight()), Aside: moment(i.GetAside()),
	}
}

func instanceHeader() []string { return []string{"NAME", "PEER", "TAGS", "HEALTH", "PATH", "RTT"} }

func (i instanceJSON) row() []string {
	return []string{or(i.label()), i.ID, or(strings.Join(i.Tags, ",")), or(i.health(time.Now())), or(via(i.Path, i.Path, i.Relay)), or(duration(i.RTT))}
}

// health tells whether the instance gets calls.
func (i instanceJSON) health(now time.Time) string {
	if i.Aside == nil || !i.Aside.After(now) {
		return i.Health
	}
	return "failing, next try in " + i.Aside.Sub(now).Round(time.Second).String()
}

// duration says a time in milliseconds as people do.
func duration(ms *float64) string {
	if ms == nil {
		return ""
	}
	return time.Duration(*ms * float64(time.Millisecond)).Round(10 * time.Microsecond).String()
}

// eachInstance hands over the instances that the node finds, as they come.
func eachInstance(ctx context.Context, c control.ControlServiceClient, req *control.FindInstancesRequest, do func(*control.Instance) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.FindInstances(ctx, req)
	if err != nil {
		return err
	}
	for {
		res, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := do(res.GetInstance()); err != nil {
			return err
		}
	}
}

// What an instance may say of itself, see control.proto.
const (
	notServing = "not serving"
	noAnswer   = "no answer"
	direct     = "direct"
)

// compareInstances puts in front whom a caller would choose: healthy, connected, near.
func compareInstances(a, b instanceJSON) int {
	return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.near(), b.near()))
}

func (i instanceJSON) rank() int {
	switch {
	case i.Health == notServing, i.Health == noAnswer:
		return 3
	case i.Aside != nil:
		return 2
	case i.Path != direct:
		return 1
	default:
		return 0
	}
}

func (i instanceJSON) near() float64 {
	if i.RTT == nil {
		return math.Inf(1)
	}
	return *i.RTT
}
