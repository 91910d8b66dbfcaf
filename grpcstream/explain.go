package grpcstream

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc/codes"

	"github.com/lynn9388/p2p/internal/safetext"
)

// explain says why a held call got no peer.
func (h *hub) explain(c *call, method string) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	waited := "in no time"
	if !c.since.IsZero() {
		waited = "after " + h.now().Sub(c.since).Round(time.Millisecond).String()
	}
	if id := c.sel.peer; id != "" {
		return h.explainPeer(id, h.peers[id], c.hold, waited)
	}
	name := c.service(method)
	s := h.services[name]
	if s == nil {
		return &Error{
			Code:    codes.Unavailable,
			Reason:  ReasonNoInstance,
			Message: fmt.Sprintf("no instance of service %q is known %s: %s", safetext.Clean(name), waited, h.nodesLocked()),
			Remedy:  noInstanceRemedy,
		}
	}
	return h.explainService(s, c, waited)
}

const noInstanceRemedy = "start a node of the same network that registers the service, or check the service's name"

// nodesLocked says who was asked.
func (h *hub) nodesLocked() string {
	n := 0
	for _, p := range h.peers {
		if p.node {
			n++
		}
	}
	switch n {
	case 0:
		return "this node is connected to no other"
	case 1:
		return "the one node connected does not offer it"
	default:
		return fmt.Sprintf("of the %d nodes connected none offers it", n)
	}
}

// explainPeer says why a call to one peer got none.
func (h *hub) explainPeer(id peer.ID, p *hubPeer, why holdKind, waited string) error {
	var cause error
	if p != nil && why != dialing {
		cause = p.failure.err
	}
	switch {
	case cause == nil && why == dialing:
		return noAnswerYet(id.String(), waited)
	case cause == nil, errors.Is(cause, errUnknownPeer):
		return &Error{
			Code:    codes.Unavailable,
			Reason:  ReasonNoInstance,
			Message: fmt.Sprintf("peer %s is not known %s: it is not connected, and no address of it is known", id, waited),
			Remedy:  "check that it runs in the same network, or name its address as ID@host:port",
		}
	case errors.Is(cause, errShortLink), errors.Is(cause, errEndedEarly):
		return &Error{
			Code:    codes.Unavailable,
			Reason:  ReasonNoAnswer,
			Message: fmt.Sprintf("peer %s closed the tunnel right after it was made", id),
			Remedy:  "it is stopping, refuses this node or has no room: look at its log",
			Err:     cause,
		}
	}
	return asError(id, cause, h.network)
}

func noAnswerYet(whom, waited string) error {
	return &Error{
		Code:    codes.Unavailable,
		Reason:  ReasonNoRoute,
		Message: fmt.Sprintf("%s did not answer %s, and the dial goes on", whom, waited),
		Remedy:  "check that it is running and that no firewall drops its packets, or allow the call more time",
	}
}

// explainMax is the number of instances whose errors are told.
const explainMax = 3

// explainService says why a call to a service with instances got none: what became of each of them.
func (h *hub) explainService(s *hubService, c *call, waited string) error {
	name := safetext.Clean(s.name)
	pl := &s.all
	if c.sel.tags != "" {
		name += " with " + strings.ReplaceAll(c.sel.tags, "\n", ", ")
		if pl = s.tagged[c.sel.tags]; pl == nil || len(pl.instances) == 0 {
			return &Error{
				Code:    codes.Unavailable,
				Reason:  ReasonNoInstance,
				Message: fmt.Sprintf("no instance of service %s is known %s, but %d without these tags", name, waited, len(s.instances)),
				Remedy:  "start a node with these tags that registers the service, or check the tags",
			}
		}
	}
	if c.hold == unfit {
		return &Error{
			Code:    codes.Unavailable,
			Reason:  ReasonNotServing,
			Message: fmt.Sprintf("the instances of service %s that can be reached say %s that they are not serving: %d are known", name, waited, len(pl.instances)),
			Remedy:  "look at the logs of those nodes, or start another one that registers the service",
		}
	}
	return h.explainFailures(pl, name, waited)
}

func (h *hub) explainFailures(pl *pool, name, waited string) error {
	var failures []error
	var texts []string
	all := slices.Clone(pl.instances)
	slices.SortFunc(all, func(a, b *instance) int { return strings.Compare(string(a.peer.id), string(b.peer.id)) })
	for _, i := range all {
		if i.peer.failure.err == nil || len(texts) == explainMax {
			continue
		}
		err := h.explainPeer(i.peer.id, i.peer, failing, waited)
		failures = append(failures, err)
		texts = append(texts, strings.TrimPrefix(err.Error(), "grpcstream: "))
	}
	if len(failures) == 0 {
		return noAnswerYet(knownInstances(len(all), name), waited)
	}
	reason := ReasonOf(failures[0])
	for _, err := range failures {
		if ReasonOf(err) != reason {
			reason = ReasonNoRoute
		}
	}
	return &Error{
		Code:    codes.Unavailable,
		Reason:  reason,
		Message: fmt.Sprintf("%s could not be reached %s: %s", knownInstances(len(all), name), waited, strings.Join(texts, "; ")),
		Err:     errors.Join(failures...),
	}
}

func knownInstances(n int, service string) string {
	if n == 1 {
		return fmt.Sprintf("the one known instance of service %q", service)
	}
	return fmt.Sprintf("the %d known instances of service %q", n, service)
}
