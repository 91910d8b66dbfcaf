package broadcast

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type number = *wrapperspb.Int64Value

// answerers makes the nodes from first on answer.
func answerers(t *testing.T, w *world, first int, answer func(ctx context.Context, i int) (number, error)) {
	t.Helper()
	for i, b := range w.buses[first:] {
		_, err := Handle(join[text](t, b, "load"), func(ctx context.Context, from peer.ID, q text) (number, error) {
			if from != w.hosts[0].ID() || q.GetValue() != "how much?" {
				return nil, fmt.Errorf("asked %q by %s", q, from)
			}
			return answer(ctx, first+i)
		})
		must(t, err)
	}
	time.Sleep(10 * time.Second) // virtual: the mesh forms
}

func TestQuery_HangingPeersDelayNothing(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 51, nil)
		w.ring(1, 7, 19)
		answerers(t, w, 1, func(ctx context.Context, i int) (number, error) {
			if i%10 == 3 { // 5 of 50
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return wrapperspb.Int64(int64(i)), nil
		})
		topic := join[text](t, w.buses[0], "load")
		ask := func() (answers map[int64]peer.ID, early, took time.Duration) {
			const deadline = 2 * time.Second
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			start := time.Now()
			answers = map[int64]peer.ID{}
			for a, err := range Query[number](ctx, topic, say("how much?"), 0) {
				if err != nil {
					t.Errorf("%s: %v", a.From, err)
					continue
				}
				answers[a.Body.GetValue()] = a.From
				early = time.Since(start)
			}
			if took = time.Since(start); took < deadline*9/10 || took > deadline*11/10 {
				t.Errorf("took %v of %v", took, deadline)
			}
			time.Sleep(time.Minute) // connections and what GossipSub knows settle
			synctest.Wait()
			return answers, early, took
		}
		ask() // pays for the connections
		before := runtime.NumGoroutine()
		answers, early, took := ask()
		if n := runtime.NumGoroutine(); n > before {
			t.Errorf("%d goroutines, %d before", n, before)
		}
		if len(answers) != 45 {
			t.Errorf("%d answers", len(answers))
		}
		for i, from := range answers {
			if w.hosts[i].ID() != from {
				t.Errorf("the answer of %d came from %s", i, from)
			}
		}
		if len(w.buses[0].asked.open) > 0 {
			t.Error("a question is left open")
		}
		t.Logf("%d answers, the last after %v, the deadline after %v", len(answers), early, took)
	})
}

func TestQuery_CountEndsIt(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 10, nil)
		w.ring(1, 3)
		answerers(t, w, 0, func(_ context.Context, i int) (number, error) { return wrapperspb.Int64(int64(i)), nil })
		start, n := time.Now(), 0
		for _, err := range Query[number](t.Context(), join[text](t, w.buses[0], "load"), say("how much?"), 4) {
			must(t, err)
			n++
		}
		if d := time.Since(start); n != 4 || d > time.Second {
			t.Errorf("%d answers in %v", n, d)
		}
		n = 0
		start = time.Now()
		for _, err := range Query[number](t.Context(), join[text](t, w.buses[0], "load"), say("how much?"), 0) {
			must(t, err)
			n++
		}
		if d := time.Since(start); n != 10 || d != DefaultQueryTime { // the asker's own among them
			t.Errorf("without a count %d answers in %v", n, d)
		}
	})
}

func TestQuery_ErrorsSayWhoseTheyAre(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 5, nil)
		w.ring(1, 2)
		answerers(t, w, 1, func(_ context.Context, i int) (number, error) {
			switch i {
			case 1:
				return nil, status.Error(codes.NotFound, "no load\x1b here")
			case 2:
				return nil, errors.New("broken\xff: " + strings.Repeat("é", MaxMessage))
			case 3:
				panic("oh")
			}
			return wrapperspb.Int64(7), nil
		})
		got := map[peer.ID]string{}
		for a, err := range Query[number](t.Context(), join[text](t, w.buses[0], "load"), say("how much?"), 4) {
			got[a.From] = fmt.Sprint(a.Body.GetValue(), " ", status.Code(err), " ", status.Convert(err).Message())
		}
		for i, want := range []string{1: `0 NotFound no load\x1b here`, 2: `0 Unknown broken\ufffd: é`, 3: "0 Internal the handler failed", 4: "7 OK "} {
			if answer := got[w.hosts[i].ID()]; i > 0 && !strings.HasPrefix(answer, want) || len(answer) > 2*overhead {
				t.Errorf("node %d answered %q, want %q", i, answer, want)
			}
		}
	})
}

func TestQuery_WrongAnswersAreRefused(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 3, nil)
		w.ring(1)
		topic := join[text](t, w.buses[0], "load")
		answerers(t, w, 1, func(_ context.Context, i int) (number, error) { return wrapperspb.Int64(int64(i)), nil })
		q, err := topic.ask(t.Context(), say("how much?"))
		must(t, err)
		time.Sleep(time.Second)
		if n := len(q.answers); n != 2 {
			t.Fatalf("%d answers", n)
		}
		send := func(from int, data []byte) {
			s, err := w.hosts[from].NewStream(t.Context(), w.hosts[0].ID(), AnswerProtocol("test"))
			must(t, err)
			_, _ = s.Write(data)
			_ = s.Close()
		}
		good := marshal(t, &Reply{Code: 5})
		send(1, append(q.id[:], good...)) // a second one
		send(1, append(make([]byte, questionID), good...))
		send(1, q.id[:3])
		time.Sleep(time.Second)
		if n := len(q.answers); n != 2 {
			t.Errorf("%d answers after wrong ones", n)
		}
		q.end()
		send(2, append(q.id[:], good...))
		time.Sleep(time.Second)
		if n := len(q.answers); n != 2 {
			t.Errorf("%d answers after the end", n)
		}
		for a, err := range Query[*durationpb.Duration](t.Context(), topic, say("how much?"), 1) {
			if status.Code(err) != codes.Internal {
				t.Errorf("an answer of another type: %v, %v", a, err)
			}
		}
	})
}

func TestQuery_FailsWhenItCannotBeAsked(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 1, nil)
		topic := join[text](t, w.buses[0], "load")
		n := 0
		for a, err := range Query[number](t.Context(), topic, say("how much?"), 0) {
			if n++; !errors.Is(err, ErrNoPeers) || a.From != "" {
				t.Errorf("got %v, %v", a, err)
			}
		}
		if n != 1 {
			t.Errorf("%d errors", n)
		}
	})
}

func TestHandle_CloseEndsTheHandlers(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.connect(0, 1)
		working := make(chan struct{})
		answerers(t, w, 1, func(ctx context.Context, _ int) (number, error) {
			close(working)
			<-ctx.Done()
			return nil, ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		topic := join[text](t, w.buses[0], "load")
		done := make(chan struct{})
		go func() {
			defer close(done)
			for a, err := range Query[number](ctx, topic, say("how much?"), 0) {
				t.Errorf("an answer of a closed node: %v, %v", a, err)
			}
		}()
		<-working
		start := time.Now()
		must(t, w.buses[1].Close())
		if d := time.Since(start); d > time.Second {
			t.Errorf("close took %v", d)
		}
		must(t, w.buses[0].Close())
		<-done // a closed bus ends the question
		if time.Since(start) > time.Second {
			t.Error("the question outlived its bus")
		}
	})
}

// One who asks much does not keep the others out.
func TestHandle_OneAskerHasAShareOfThePlaces(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 3, nil)
		w.ring(1)
		answerers(t, w, 2, func(ctx context.Context, _ int) (number, error) {
			<-ctx.Done() // as long as it may
			return nil, ctx.Err()
		})
		busy := func(asker, questions int) (refused int) {
			topic := join[text](t, w.buses[asker], "load")
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			var mu sync.Mutex
			var wg sync.WaitGroup
			for range questions {
				wg.Go(func() {
					for _, err := range Query[number](ctx, topic, say("how much?"), 0) {
						if status.Code(err) == codes.ResourceExhausted {
							mu.Lock()
							refused++
							mu.Unlock()
						}
					}
				})
			}
			wg.Wait()
			return refused
		}
		var first, second int
		var wg sync.WaitGroup
		wg.Go(func() { first = busy(0, maxHandlersEach+5) })
		time.Sleep(time.Second)
		wg.Go(func() { second = busy(1, 1) })
		wg.Wait()
		if first != 5 || second != 0 {
			t.Errorf("refused: %d of the one, %d of the other", first, second)
		}
	})
}

// Who must not dial the asker does not, even to answer.
func TestQuery_AnswersGoToThoseWhoMayBeDialed(t *testing.T) {
	inTime(t, func(t *testing.T) {
		var asker peer.ID
		w := newWorld(t, 4, func(i int, c *Config) {
			if i == 3 {
				c.Dial = func(_ peer.ID, p peer.AddrInfo) ([]ma.Multiaddr, bool) { return p.Addrs, p.ID != asker }
			}
		})
		asker = w.hosts[0].ID()
		w.connect(0, 1)
		w.connect(1, 2)
		w.connect(1, 3)
		answerers(t, w, 1, func(_ context.Context, i int) (number, error) { return wrapperspb.Int64(int64(i)), nil })
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var from []int64
		for a, err := range Query[number](ctx, join[text](t, w.buses[0], "load"), say("how much?"), 0) {
			must(t, err)
			from = append(from, a.Body.GetValue())
		}
		if slices.Sort(from); !slices.Equal(from, []int64{1, 2}) {
			t.Errorf("answers of %v", from)
		}
	})
}

// The asker itself may close the bus, while more answers wait than it has taken.
func TestQuery_AnswersThatWaitDoNotHoldUpClose(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.connect(0, 1)
		answerers(t, w, 1, func(context.Context, int) (number, error) { return nil, errors.New("unheard") })
		q, err := join[text](t, w.buses[0], "load").ask(t.Context(), say("how much?"))
		must(t, err)
		var others sync.WaitGroup
		for range maxAnswers {
			others.Go(func() { q.give("somebody", &Reply{Code: 5}) })
		}
		time.Sleep(time.Second) // the answer, or one of these, waits for its place
		closed := make(chan error, 1)
		go func() { closed <- w.buses[0].Close() }()
		select {
		case err := <-closed:
			must(t, err)
		case <-time.After(time.Minute):
			t.Error("the bus does not close")
			q.end() // so that it does
		}
		others.Wait()
		q.end()
	})
}
