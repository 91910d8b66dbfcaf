package control

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lynn9388/p2p/protocols/broadcast"
)

// maxTopics is how many topics stay joined after they were published on.
const maxTopics = 64

// topics are the topics that this node publishes on for its commands. A command ends soon, but the node keeps the topic:
// others hold it to a rate whatever command sends, and so the bus has to know what the command before has sent.
type topics struct {
	join func(name string) (*broadcast.Topic[*anypb.Any], error)

	mu   sync.Mutex
	open []*openTopic // the one used last is the last
}

type openTopic struct {
	*broadcast.Topic[*anypb.Any]
	users int
}

// get returns a topic, to be given back by put.
func (t *topics) get(name string) (*openTopic, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.open, func(o *openTopic) bool { return o.Name() == name })
	var o *openTopic
	if i >= 0 {
		o = t.open[i]
		t.open = slices.Delete(t.open, i, i+1)
	} else {
		topic, err := t.join(name)
		if err != nil {
			return nil, err
		}
		o = &openTopic{Topic: topic}
	}
	o.users++
	t.open = append(t.open, o)
	return o, nil
}

// put gives a topic back, and leaves the one that was not used for the longest time if there are too many.
func (t *topics) put(o *openTopic) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.users--
	if len(t.open) <= maxTopics {
		return nil
	}
	i := slices.IndexFunc(t.open, func(o *openTopic) bool { return o.users == 0 })
	if i < 0 {
		return nil
	}
	idle := t.open[i]
	t.open = slices.Delete(t.open, i, i+1)
	return idle.Close()
}
