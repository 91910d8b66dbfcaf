package p2p

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/safetext"
)

// askRelayTimeout bounds how long the start looks for who answers at a relay that was named without its ID.
const askRelayTimeout = 5 * time.Second

// relayPlaces are the relays as places to join.
func (c *config) relayPlaces() []string {
	var out []string
	for _, r := range c.relays {
		out = append(out, r.text)
	}
	return out
}

// relayIDs are the relays that may be connected although no list names them.
func (c *config) relayIDs() []peer.ID {
	var out []peer.ID
	for _, r := range c.relays {
		if r.info.ID != "" {
			out = append(out, r.info.ID)
		}
	}
	return out
}

// carries is how the node serves as a relay; nil: it does not.
func (c *config) carries() *host.RelayConfig {
	if c.profile != profileRelay {
		return nil
	}
	return &host.RelayConfig{Metrics: c.metrics}
}

// checkRelays refuses relays that were named without an ID: a relay is believed about who is where, so the first who
// answers will not do. It asks who does, for an error that has the complete form in it.
func (r *running) checkRelays() error {
	var errs []error
	for _, relay := range r.node.config.relays {
		if relay.info.ID == "" {
			errs = append(errs, r.unnamed(relay))
		}
	}
	return errors.Join(errs...)
}

func (r *running) unnamed(relay namedRelay) error {
	ctx, cancel := context.WithTimeout(r.ctx, askRelayTimeout)
	defer cancel()
	complete := func(id string) string {
		if strings.HasPrefix(relay.text, "/") {
			return relay.text + "/p2p/" + id
		}
		return id + "@" + relay.text
	}
	id, err := r.whoAnswers(ctx, relay.info)
	if err != nil {
		return fmt.Errorf("the relay %s has no ID: write %s, with the ID that the relay prints at its start; asked who is there, nobody answered: %s",
			relay.text, complete("ID"), safetext.Clean(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	return fmt.Errorf("the relay %s has no ID; if the one that answers there is yours, write: %s", relay.text, complete(id.String()))
}

// whoAnswers asks all addresses of a place at once, and believes the first that says something.
func (r *running) whoAnswers(ctx context.Context, place peer.AddrInfo) (peer.ID, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		id  peer.ID
		err error
	}
	answers := make(chan answer, len(place.Addrs))
	for _, a := range place.Addrs {
		go func() {
			id, err := host.Identify(ctx, r.host, a)
			answers <- answer{id, err}
		}()
	}
	var found peer.ID
	var errs []error
	for range place.Addrs {
		a := <-answers
		switch {
		case found != "": // the others were told to end
		case a.err != nil:
			errs = append(errs, a.err)
		default:
			found = a.id
			cancel()
		}
	}
	if found == "" {
		return "", errors.Join(errs...)
	}
	return found, nil
}
