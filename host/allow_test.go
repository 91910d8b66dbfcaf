package host_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/test"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/virtual"
)

func someID(t *testing.T) peer.ID {
	t.Helper()
	id, err := test.RandPeerID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func writeAllow(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "allow")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAllowList_Nil(t *testing.T) {
	var l *host.AllowList
	if !l.Allows(someID(t)) {
		t.Error("a nil list refuses")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx, nil, nil); err != nil {
		t.Error(err)
	}
}

func TestNewAllowList_Union(t *testing.T) {
	a, b, c, stranger := someID(t), someID(t), someID(t), someID(t)
	file := writeAllow(t, "# friends\n\n"+a.String()+"\n  "+b.String()+"\tBob's laptop # at home\r\n")
	l, err := host.NewAllowList(file, c)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[peer.ID]bool{a: true, b: true, c: true, stranger: false, "": false} {
		if got := l.Allows(id); got != want {
			t.Errorf("%s: %v", id, got)
		}
	}
}

func TestNewAllowList_Empty(t *testing.T) {
	l, err := host.NewAllowList("")
	if err != nil || l.Allows(someID(t)) {
		t.Errorf("an empty list allows somebody: %v", err)
	}
}

func TestNewAllowList_FaultIsNamed(t *testing.T) {
	good := someID(t).String()
	for _, tc := range []struct{ name, text, want string }{
		{"not an ID", good + "\n\nalice\n", ":3: \"alice\""},
		{"comment first", "alice " + good, ":1: \"alice\""},
		{"half an ID", good[:20], ":1:"},
		{"terminal codes", "\x1b[2Jx", `\x1b[2Jx`},
		{"a very long line", strings.Repeat("a", 100_000), "too long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := writeAllow(t, tc.text)
			_, err := host.NewAllowList(file)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), file) {
				t.Errorf("error %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "\x1b") {
				t.Errorf("control characters in %q", err)
			}
		})
	}
	if _, err := host.NewAllowList(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a missing file is no error")
	}
}

// lockedBuffer is a log that one goroutine writes and another reads.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// take returns what was written since it was called last.
func (b *lockedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.buf.Reset()
	return b.buf.String()
}

// follow runs a list for a host. Its end is deferred, also for a test that gives up: a bubble panics about what is left in
// it, which hides why.
func follow(t *testing.T, l *host.AllowList, h corehost.Host, log *slog.Logger) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx, h, log) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// following runs a list in a bubble between two connected hosts: b has the list, a is on it.
func following(t *testing.T, f func(t *testing.T, a, b corehost.Host, file string, log *lockedBuffer)) {
	t.Helper()
	virtual.Test(t, func(t *testing.T) {
		n := hosttest.New(t)
		defer n.Close()
		a := n.Host()
		file := writeAllow(t, a.ID().String())
		l, err := host.NewAllowList(file)
		if err != nil {
			t.Fatal(err)
		}
		b := n.HostWith(host.Config{Allow: l})
		if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: host.Addrs(b)}); err != nil {
			t.Fatal(err)
		}
		var log lockedBuffer
		defer follow(t, l, b, slog.New(slog.NewTextHandler(&log, nil)))()
		f(t, a, b, file, &log)
	})
}

func TestAllowList_RemovedPeerIsLetGo(t *testing.T) {
	following(t, func(t *testing.T, a, b corehost.Host, file string, _ *lockedBuffer) {
		t.Helper()
		b.SetStreamHandler("/wait", func(s network.Stream) { _, _ = io.Copy(io.Discard, s) })
		s, err := a.NewStream(t.Context(), b.ID(), "/wait")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // virtual
		if b.Network().Connectedness(a.ID()) != network.Connected {
			t.Fatal("a was let go too early")
		}
		if err := os.WriteFile(file, []byte("# nobody\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_ = s.SetReadDeadline(start.Add(10 * time.Second))
		if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the stream ended with %v", err)
		}
		if took := time.Since(start); took > 300*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		if a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: host.Addrs(b)}) == nil {
			time.Sleep(time.Second) // over QUIC the dialer learns afterwards
			if a.Network().Connectedness(b.ID()) == network.Connected {
				t.Error("a is connected again")
			}
		}
	})
}

// Threat T29: a relay that carries need not be allowed to call, and is no matter of the list's until it was on it.
func TestAllowList_ANamedRelayOutlastsAChange(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		n := hosttest.New(t)
		defer n.Close()
		relay, a := n.Host(), n.Host()
		file := writeAllow(t, a.ID().String())
		l, err := host.NewAllowList(file)
		if err != nil {
			t.Fatal(err)
		}
		b := n.HostWith(host.Config{Allow: l, Relays: []peer.ID{relay.ID()}})
		defer follow(t, l, b, nil)()
		connect := func() network.Conn {
			if err := b.Connect(t.Context(), peer.AddrInfo{ID: relay.ID(), Addrs: host.Addrs(relay)}); err != nil {
				t.Fatal(err)
			}
			return b.Network().ConnsToPeer(relay.ID())[0]
		}
		write := func(text string) {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			<-time.After(5 * time.Second) // virtual
		}
		first := connect()
		write("# nobody\n")
		if first.IsClosed() {
			t.Error("a relay that was never listed is let go by a change")
		}
		write(relay.ID().String() + "\n")
		write("# nobody again\n")
		if !first.IsClosed() {
			t.Error("a relay that is taken off the list keeps the connection over which it called")
		}
		second := connect()
		<-time.After(5 * time.Second)
		if second.IsClosed() {
			t.Error("it does not carry any more")
		}
	})
}

func TestAllowList_AddedPeerMayConnect(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		n := hosttest.New(t)
		defer n.Close()
		a := n.Host()
		file := writeAllow(t, "")
		l, err := host.NewAllowList(file)
		if err != nil {
			t.Fatal(err)
		}
		b := n.HostWith(host.Config{Allow: l})
		defer follow(t, l, b, nil)()
		if err := os.WriteFile(file, []byte(a.ID().String()), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		if !l.Allows(a.ID()) {
			t.Error("a is not on the list after 300 ms")
		}
		if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: host.Addrs(b)}); err != nil {
			t.Error(err)
		}
	})
}

func TestAllowList_LastGoodOneHolds(t *testing.T) {
	following(t, func(t *testing.T, a, b corehost.Host, file string, log *lockedBuffer) {
		t.Helper()
		for _, fault := range []func() error{
			func() error { return os.Remove(file) },
			func() error { return os.WriteFile(file, []byte("alice"), 0o600) },
		} {
			if err := fault(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute) // virtual
			if b.Network().Connectedness(a.ID()) != network.Connected {
				t.Error("a was let go")
			}
			said := log.take()
			if got := strings.Count(said, "level=WARN"); got != 1 {
				t.Errorf("%d warnings:\n%s", got, said)
			}
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if b.Network().Connectedness(a.ID()) == network.Connected {
			t.Error("the mended file does not count")
		}
	})
}

func TestAllowList_HalfWrittenFileDoesNotCount(t *testing.T) {
	following(t, func(t *testing.T, a, b corehost.Host, file string, _ *lockedBuffer) {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 { // an editor that empties the file and writes it 60 ms later
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(60 * time.Millisecond)
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(250 * time.Millisecond)
		}
		if b.Network().Connectedness(a.ID()) != network.Connected {
			t.Error("a was let go")
		}
	})
}

// TestGate_StrangerGetsOnlyTheHandshake holds for both directions: no connection, no identify, no record.
func TestGate_StrangerGetsOnlyTheHandshake(t *testing.T) {
	for _, dir := range []string{"inbound", "outbound"} {
		t.Run(dir, func(t *testing.T) {
			virtual.Test(t, func(t *testing.T) {
				n := hosttest.New(t)
				defer n.Close()
				l, err := host.NewAllowList("")
				if err != nil {
					t.Fatal(err)
				}
				closed := n.HostWith(host.Config{Allow: l, UserAgent: "secret"})
				stranger := n.Host(libp2p.UserAgent("stranger"))
				from, to := stranger, closed
				if dir == "outbound" {
					from, to = closed, stranger
				}
				identified, err := stranger.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
				if err != nil {
					t.Fatal(err)
				}
				defer identified.Close()
				err = from.Connect(t.Context(), peer.AddrInfo{ID: to.ID(), Addrs: host.Addrs(to)})
				if err == nil && dir == "outbound" {
					t.Error("connected")
				}
				time.Sleep(5 * time.Second)
				if got := len(closed.Network().Conns()); got != 0 {
					t.Errorf("%d connections", got)
				}
				if got := len(stranger.Network().Conns()); got != 0 {
					t.Errorf("%d connections at the stranger", got)
				}
				select {
				case e := <-identified.Out():
					t.Errorf("the stranger got %v", e)
				default:
				}
				if v, err := stranger.Peerstore().Get(closed.ID(), "AgentVersion"); err == nil {
					t.Errorf("the stranger knows the agent version %v", v)
				}
			})
		})
	}
}

func FuzzAllowFile(f *testing.F) {
	f.Add([]byte("# comment\n12D3KooWKdw5bCAeE6WcvdcWddRgrqEhghjuoyigFm8xg8ni8M5z name\n"))
	f.Add([]byte("\ufeff\r\n\x00"))
	f.Add([]byte("alice"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ids, err := host.ParseAllowFile("allow", data)
		if err != nil && !strings.HasPrefix(err.Error(), "allow:") {
			t.Errorf("error %q names no file", err)
		}
		for _, id := range ids {
			if id.Validate() != nil {
				t.Errorf("%q", id)
			}
		}
	})
}
