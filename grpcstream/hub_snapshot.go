package grpcstream

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// snapshot returns the instances of a service that have the tags given, one a line, sorted by peer.
func (h *hub) snapshot(service, tags string) []Instance {
	h.mu.RLock()
	defer h.mu.RUnlock()
	s := h.services[service]
	if s == nil {
		return nil
	}
	var want []string
	if tags != "" {
		want = strings.Split(tags, "\n")
	}
	now := h.now()
	var all []Instance
	for _, i := range s.instances {
		if containsAll(i.peer.tags, want) {
			all = append(all, h.describe(i, now))
		}
	}
	slices.SortFunc(all, func(a, b Instance) int { return cmp.Compare(a.Peer, b.Peer) })
	return all
}

func (h *hub) describe(i *instance, now time.Time) Instance {
	p := i.peer
	d := Instance{
		Peer: p.id, Tags: slices.Clone(p.tags), Self: p.id == h.self, Path: PathDirect,
		RTT: h.distance(p), InFlight: int(p.active.Load()),
	}
	switch i.health {
	case serving:
		d.Health = HealthServing
	case notServing:
		d.Health = HealthNotServing
	case unasked, unsaid:
	}
	l := p.link.Load()
	d.Connected = l != nil
	switch {
	case d.Self:
		d.Path = PathMemory
	case l != nil && l.path != "":
		d.Path = l.path
	case p.farAway:
		d.Path = PathRelay
	}
	if p.aside.After(now) {
		d.Aside = p.aside
	}
	return d
}

// distance returns the round trip to a peer, or 0.
func (h *hub) distance(p *hubPeer) time.Duration {
	if p.id == h.self {
		return 1 // nobody is nearer
	}
	return cmp.Or(h.rtt(p.id), p.rtt)
}
