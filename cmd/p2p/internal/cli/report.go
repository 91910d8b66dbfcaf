package cli

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/internal/addr"
)

// report prints what a person wants to see of a running node, until ctx ends or the node does.
func (s *session) report(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := make(chan p2p.PeerEvent)
	sequence := s.node.PeerEvents(ctx)
	s.now.reporting.Store(true)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(events)
		for e := range sequence {
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	s.awaitShare(ctx)
	if err := s.printStart(); err != nil {
		return err
	}
	seen, told := newSeen(), newSeen()
	for _, p := range s.node.Peers() {
		if err := s.printPresent(seen, p); err != nil {
			return err
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			<-ended
			return nil
		case e, ok := <-events:
			if !ok {
				return nil
			}
			if err := s.printEvent(seen, e); err != nil {
				return err
			}
		case <-tick.C:
			if err := errors.Join(s.printShare(), s.printReasons(told)); err != nil {
				return err
			}
		}
	}
}

// printStart prints the lines that every run begins with; the first of them is for programs, too.
func (s *session) printStart() error {
	s.shared = s.share()
	lines := []string{"share: " + s.shared, "open to: " + s.access()}
	listening := "listening: " + strings.Join(s.ports(), ", ")
	if s.localOnly() {
		listening += " (this machine only)"
	}
	lines = append(lines, listening)
	if s.home == "" {
		lines = append(lines, "home: none, the identity ends with this run")
	} else {
		lines = append(lines, "home: "+s.home)
	}
	if private := s.privateRelay(); private != "" {
		lines = append(lines, "note: "+private)
	}
	for _, n := range s.notes {
		lines = append(lines, "note: "+n)
	}
	if s.opts.verbose {
		for _, a := range s.node.Addrs() {
			lines = append(lines, "address: "+a.String())
		}
	}
	return s.out.Lines(lines)
}

// ports lists the ports that the node listens at, and where.
func (s *session) ports() []string {
	hosts := make(map[string][]string)
	var order []string
	for _, a := range s.node.Host().Network().ListenAddresses() {
		p, ok := placeOf(a)
		if !ok {
			continue
		}
		port := strconv.Itoa(int(p.port))
		where := p.host
		if ip, err := netip.ParseAddr(p.host); err == nil && ip.IsUnspecified() {
			where = "all addresses"
		}
		if hosts[port] == nil {
			order = append(order, port)
		}
		if !slices.Contains(hosts[port], where) {
			hosts[port] = append(hosts[port], where)
		}
	}
	var out []string
	slices.Sort(order)
	for _, port := range order {
		slices.Sort(hosts[port])
		out = append(out, "port "+port+" on "+strings.Join(hosts[port], " and "))
	}
	return out
}

// localOnly tells whether only this machine reaches the node, now and whatever interfaces come up.
func (s *session) localOnly() bool {
	relayed := s.opts.profile == profileWAN && len(s.opts.join) > 0
	return len(s.opts.announce) == 0 && !relayed && addr.LoopbackOnly(s.node.Host().Network().ListenAddresses())
}

// seen is what was printed as being there, so that nothing is announced twice.
type seen map[string]bool

func newSeen() seen { return make(seen) }

// first tells whether a key was not there, and adds it.
func (s seen) first(key string) bool {
	if s[key] {
		return false
	}
	s[key] = true
	return true
}

// printPresent prints a peer that was there before the events began.
func (s *session) printPresent(seen seen, p p2p.PeerInfo) error {
	now := time.Now()
	if p.State == p2p.StateNeighbor {
		if err := s.printEvent(seen, p2p.PeerEvent{Kind: p2p.PeerJoined, Time: now, Peer: p}); err != nil {
			return err
		}
	}
	for _, svc := range p.Services {
		if err := s.printEvent(seen, p2p.PeerEvent{Kind: p2p.ServiceAdded, Time: now, Peer: p, Service: svc}); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) printEvent(seen seen, e p2p.PeerEvent) error {
	id := e.Peer.ID.String()
	switch e.Kind {
	case p2p.PeerFound:
		if !s.opts.verbose {
			return nil
		}
	case p2p.PeerUnreachable:
		if s.isRelay(e.Peer.ID) {
			return nil // more is said of it elsewhere
		}
		s.complaints.note(e)
	case p2p.PeerCloned:
		s.complaints.note(e)
	case p2p.PeerJoined:
		if !seen.first(id) {
			return nil
		}
	case p2p.PeerLeft:
		delete(seen, id)
	case p2p.ServiceAdded:
		if !seen.first(id + e.Service) {
			return nil
		}
	case p2p.ServiceRemoved:
		delete(seen, id+e.Service)
	default:
	}
	return s.out.Printf("%s  %s\n", e.Time.Local().Format(time.TimeOnly), eventText(e, s.relay(e.Peer.Relay)))
}

// relay says who a relay is; nil when there is none.
func (s *session) relay(id peer.ID) *senderJSON {
	if id == "" {
		return nil
	}
	out := &senderJSON{ID: id.String()}
	for _, p := range s.node.Peers() {
		if p.ID == id {
			out.Name, out.PinnedName = p.Name, p.Pinned
		}
	}
	return out
}

// eventText says an event in words; what the peer chose in them is made safe by the printer.
func eventText(e p2p.PeerEvent, relay *senderJSON) string {
	v := eventJSON{Kind: string(e.Kind), Service: e.Service, Peer: peerJSON{
		ID: e.Peer.ID.String(), Name: e.Peer.Name, PinnedName: e.Peer.Pinned, Path: e.Peer.Path, Transport: e.Peer.Transport, Relay: relay,
	}}
	if e.Kind != p2p.PeerLeft {
		for _, a := range e.Peer.Addrs {
			v.Peer.Addrs = append(v.Peer.Addrs, a.String())
		}
	}
	if e.Err != nil {
		v.Error = e.Err.Error()
	}
	return v.text()
}

// printReasons says once why nobody was found and which relay does not carry, as long as that is so. What is in told was
// said and still holds.
func (s *session) printReasons(told seen) error {
	lines := s.relayReasons()
	for _, text := range s.lonely() {
		lines = append(lines, "looking for others: "+text)
	}
	maps.DeleteFunc(told, func(text string, _ bool) bool { return !slices.Contains(lines, text) })
	for _, text := range lines {
		if !told.first(text) {
			continue
		}
		if err := s.out.Printf("%s  %s\n", time.Now().Format(time.TimeOnly), text); err != nil {
			return err
		}
	}
	return nil
}
