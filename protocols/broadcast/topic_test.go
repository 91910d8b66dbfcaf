package broadcast

import (
	"testing"
	"time"
)

func TestPublish_IsHeardOnceByEverybody(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 5, nil)
		defer w.close()
		w.ring(1)
		var subs []*Subscription[text]
		var topics []*Topic[text]
		for _, b := range w.buses {
			topic := join[text](t, b, "news")
			topics = append(topics, topic)
			subs = append(subs, subscribe(t, topic, 0))
		}
		time.Sleep(2 * time.Second)
		must(t, topics[0].Publish(t.Context(), say("hello")))
		time.Sleep(10 * time.Second)
		for i, s := range subs {
			if got := heardBy(s); len(got) != 1 || got[0] != "hello" {
				t.Errorf("node %d heard %q", i, got)
			}
		}
	})
}
