package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/reach"
	"github.com/lynn9388/p2p/internal/addr"
)

const (
	nameUDP   = "udp"
	nameRelay = "relay"
	// knockTimeout is how long somebody may take to answer at an address.
	knockTimeout = 4 * time.Second
)

// Knock is what answered at one address.
type Knock struct {
	Addr     ma.Multiaddr
	Answered peer.ID // who proved to be there; empty: nobody
	Took     time.Duration
	Err      error
}

// over tells by which transport it was: "UDP", "TCP" or "WebSocket".
func (k Knock) over() string {
	text := k.Addr.String()
	switch {
	case strings.Contains(text, "/udp/"):
		return "UDP"
	case strings.Contains(text, "/ws"):
		return "WebSocket"
	default:
		return "TCP"
	}
}

// A Door is a place, and what answered at each of its addresses.
type Door struct {
	Place  string  // as it was named
	ID     peer.ID // who is to be there; empty: whoever is
	Knocks []Knock
}

// KnockAt asks who answers at each address of a place, all at once. It is asked who is there by a handshake that goes no
// further, so that it needs no permission.
func KnockAt(ctx context.Context, h corehost.Host, place string) (Door, error) {
	info, err := addr.ParseJoin(place)
	if err != nil {
		return Door{}, err
	}
	return knock(ctx, h, place, info), nil
}

func knock(ctx context.Context, h corehost.Host, place string, info peer.AddrInfo) Door {
	ctx, cancel := context.WithTimeout(ctx, knockTimeout)
	defer cancel()
	d := Door{Place: place, ID: info.ID, Knocks: make([]Knock, len(info.Addrs))}
	var wg sync.WaitGroup
	for i, a := range info.Addrs {
		wg.Go(func() {
			begin := time.Now()
			id, err := host.Identify(ctx, h, a)
			if errors.Is(err, context.DeadlineExceeded) {
				err = errors.New("no answer")
			}
			d.Knocks[i] = Knock{Addr: a, Answered: id, Took: time.Since(begin), Err: err}
		})
	}
	wg.Wait()
	return d
}

// open tells whether the right one answered by a transport, and whether it was tried.
func (d Door) open(transport string) (open, tried bool) {
	for _, k := range d.Knocks {
		if k.over() == transport {
			tried = true
			open = open || k.Answered != "" && (d.ID == "" || k.Answered == d.ID)
		}
	}
	return open, tried
}

// stranger is who answered in place of the one who was named; empty: nobody did.
func (d Door) stranger() peer.ID {
	for _, k := range d.Knocks {
		if k.Answered != "" && d.ID != "" && k.Answered != d.ID {
			return k.Answered
		}
	}
	return ""
}

// met says what each transport met.
func (d Door) met() string {
	var out []string
	for _, k := range d.Knocks {
		if k.Answered != "" {
			out = append(out, fmt.Sprintf("%s answers in %v", k.over(), k.Took.Round(time.Millisecond)))
			continue
		}
		out = append(out, k.over()+": "+reason(k.Err))
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ", ")
}

// reason is the last part of an error, which says what happened.
func reason(err error) string {
	if err == nil {
		return "no answer"
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		return text[i+2:]
	}
	return text
}

// Relays judges what answered at the relays' places, and what the node has of them; status may be empty when no node runs.
func Relays(doors []Door, status reach.Status) []Check {
	var out []Check
	for _, d := range doors {
		out = append(out, relay(d, status))
	}
	return append(out, UDP(doors))
}

func relay(d Door, status reach.Status) Check {
	tcp, _ := d.open("TCP")
	udp, _ := d.open("UDP")
	web, _ := d.open("WebSocket")
	if id := d.stranger(); id != "" && !tcp && !udp && !web {
		return fail(nameRelay, "%s: another peer answers there: %s", d.Place, id).todo("if that is your relay, name it by this ID; its first line says it")
	}
	if !tcp && !udp && !web {
		return fail(nameRelay, "%s: nobody answers: %s", d.Place, d.met()).
			todo("see that the relay runs, that its name and port are right, and that the firewall in front of it lets TCP and UDP in at that port")
	}
	i := slices.IndexFunc(status.Relays, func(r reach.RelayStatus) bool { return r.ID == d.ID })
	switch {
	case i < 0:
		return pass(nameRelay, "%s: %s", d.Place, d.met())
	case len(status.Relays[i].Connected) == 0:
		return fail(nameRelay, "%s: %s, and the node is not connected to it: %s", d.Place, d.met(), status.Relays[i].LastError).
			todo("put this node's ID on the relay's allow list, and see that both have the same network name")
	case status.Relays[i].Reserved:
		return pass(nameRelay, "%s: %s, and carries for this node: %s", d.Place, d.met(), limitsOf(status.Relays[i]))
	case status.Relays[i].LastError != "":
		return fail(nameRelay, "%s: %s, and does not carry for this node: %s", d.Place, d.met(), status.Relays[i].LastError).
			todo("start it with --profile relay, and put this node's ID on its allow list")
	default:
		return pass(nameRelay, "%s: %s; nothing has to be carried", d.Place, d.met())
	}
}

// limitsOf says how much and how long a relay carries one connection.
func limitsOf(r reach.RelayStatus) string {
	data, long := "any amount", "without end"
	if r.LimitData > 0 {
		data = size(r.LimitData)
	}
	if r.LimitDuration > 0 {
		long = "for " + r.LimitDuration.Round(time.Second).String()
	}
	return data + " " + long + " each connection"
}

// size says a number of bytes as people do.
func size(n uint64) string {
	value, unit := float64(n), 0
	for value >= 1024 && unit < 5 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.4g %s", value, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}[unit])
}

// UDP judges whether UDP gets through, by the relays.
func UDP(doors []Door) Check {
	var open, shut []string
	for _, d := range doors {
		tcp, _ := d.open("TCP")
		udp, tried := d.open("UDP")
		switch {
		case udp:
			open = append(open, d.Place)
		case tried && tcp:
			shut = append(shut, d.Place)
		}
	}
	switch {
	case len(open) == 0 && len(shut) == 0:
		return unknown(nameUDP, "there is nobody to ask whether it gets through").todo("name a relay with --join")
	case len(shut) == 0:
		return pass(nameUDP, "gets through to %s", count(len(open), "relay"))
	case len(open) > 0:
		return warn(nameUDP, "gets through to %s, and at %s only TCP is open", strings.Join(open, ", "), strings.Join(shut, ", ")).
			todo("let UDP in at the same port in the firewall of %s: without it direct connections are slower to come, or do not", strings.Join(shut, ", "))
	case len(shut) == 1:
		return warn(nameUDP, "no answer from %s, which answers over TCP: UDP is blocked here or there; a second relay would tell where", shut[0]).
			todo("let UDP in at the relay's port, in the firewall of its machine and of its provider; if that is so, let it out here")
	default:
		return fail(nameUDP, "is blocked on this side: %d relays answer over TCP, and none over UDP", len(shut)).
			todo("let UDP out in the firewall of this network; until then TCP is used, and direct connections are rarer")
	}
}
