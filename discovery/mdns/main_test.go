package mdns

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/pace"
)

// childEnv makes the test's binary a node: its value is where to listen.
const childEnv = "MDNS_TEST_LISTEN"

func TestMain(m *testing.M) {
	if listen, ok := os.LookupEnv(childEnv); ok {
		if err := child(strings.Fields(listen)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	pace.Waiting(6) // for answers on the links of hosts of their own
	goleak.VerifyTestMain(m)
}

// A report is a line that a child prints.
type report struct {
	Self   string   `json:",omitempty"` // at first
	Found  string   `json:",omitempty"` // a peer that was found
	Addrs  []string `json:",omitempty"`
	Reason Reason   `json:",omitempty"` // a new state
	Text   string   `json:",omitempty"`
}

// child is a node that only looks for others, until its standard input ends. It prints what it finds, and its state
// when that changes.
func child(listen []string) error {
	h, err := host.New(host.Config{})
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	if err := host.Listen(h, listen...); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	say := func(r report) {
		mu.Lock()
		defer mu.Unlock()
		_ = out.Encode(r)
	}
	say(report{Self: h.ID().String()})
	s := New(Config{Network: os.Getenv("MDNS_TEST_NETWORK"), Logger: childLog()})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx, h, func(info peer.AddrInfo) {
			r := report{Found: info.ID.String()}
			for _, a := range info.Addrs {
				r.Addrs = append(r.Addrs, a.String())
			}
			say(r)
			if os.Getenv("MDNS_TEST_CONNECT") != "" {
				wg.Go(func() { connect(ctx, h, info) })
			}
		}); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	wg.Go(func() {
		var last Reason
		for ctx.Err() == nil {
			if st := s.State(); st.Reason != last {
				last = st.Reason
				say(report{Reason: st.Reason, Text: st.Text})
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() == "refresh" {
			s.Refresh()
		}
	}
	cancel()
	wg.Wait()
	return nil
}

func connect(ctx context.Context, h corehost.Host, info peer.AddrInfo) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = h.Connect(ctx, info)
}

func childLog() *slog.Logger {
	if os.Getenv("MDNS_TEST_DEBUG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}
