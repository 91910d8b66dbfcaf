//go:build linux

package p2p_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/internal/netns"
	"github.com/lynn9388/p2p/internal/pace"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/p2ptest"
)

// What the processes of TestChoosing_OnALAN are told besides their part.
const (
	lanNetworkEnv = "P2P_TEST_NETWORK"
	lanHomeEnv    = "P2P_TEST_HOME"
)

// work is how long an instance works for a call under load.
const work = 20 * time.Millisecond

// The parts of a test on a LAN: instances of a service, and one that calls them. All find one another by multicast DNS.
func TestChoosing_OnALAN(t *testing.T) {
	switch part() {
	case "instance":
		playInstance(t)
		return
	case "caller":
		playCaller(t)
		return
	}
	t.Parallel()
	lab := &choosingLab{t: t, bridge: netns.New(t).Bridge(), network: p2ptest.Network()}
	one, two, three := lab.instance(), lab.instance(), lab.instance()
	caller := play(t, lab.bridge.Host(), "caller", lanNetworkEnv+"="+lab.network)
	for _, i := range []*lanInstance{one, two, three} {
		i.awaitReady()
	}
	caller.tell("await 3")
	caller.hear(30 * time.Second)

	// 9,000 calls are spread within 5 % of evenly.
	const calls = 9000
	spread := map[string]int{}
	spreadOf := func(n int) []madeCall {
		result := lab.told(caller, fmt.Sprintf("spread %d", n))
		clear(spread)
		for _, c := range result {
			spread[c.Who]++
		}
		return result
	}
	if !pace.Long() { // a machine that is busy connects to one much sooner than to the others
		for range 20 {
			if spreadOf(100); len(spread) == 3 {
				break
			}
		}
	}
	result := spreadOf(calls)
	t.Logf("%d calls: %v", len(result), spread)
	for _, i := range []*lanInstance{one, two, three} {
		if n := spread[i.id]; n < calls/3*95/100 || n > calls/3*105/100 {
			t.Errorf("an instance got %d of %d calls, want a third, give or take 5 %%", n, calls)
		}
	}
	if n := spread[""]; n > 0 {
		t.Errorf("%d calls failed", n)
	}
	for _, i := range []*lanInstance{one, two, three} {
		i.hear(10 * time.Second) // that it was called
	}

	lab.killed(caller, one)
	lab.changed(caller, one, two)
}

// killed kills an instance under load: only calls that were on it, or on their way to it, may fail.
func (l *choosingLab) killed(caller *player, victim *lanInstance) {
	t := l.t
	t.Helper()
	caller.tell("load")
	time.Sleep(2 * time.Second)
	at := victim.kill()
	time.Sleep(5 * time.Second)
	result := l.told(caller, "stop")
	window := 100 * time.Millisecond
	if !pace.Long() {
		window = 5 * time.Second // a machine with much else to do is late by seconds
	}
	var near, failed, repeatable int
	for _, c := range result {
		after := c.At.Sub(at)
		isNear := after.Abs() < window
		if isNear && !c.Repeatable {
			near++
		}
		switch {
		case c.Err == "":
		case c.Repeatable:
			repeatable++
			t.Errorf("a repeatable call of %v after the kill failed: %s", after, c.Err)
		case isNear:
			failed++
		default:
			t.Errorf("a call of %v after the kill failed: %s", after, c.Err)
		}
	}
	t.Logf("kill -9 under 500 calls/s: of %d calls, %d not repeatable ones were made within %v of the kill, a third of them to the victim: %d of them failed, and %d repeatable ones",
		len(result), near, window, failed, repeatable)
	if failed > near/3+1 {
		t.Errorf("%d calls failed by the kill, of %d within %v of it", failed, near, window)
	}
	if failed == 0 {
		t.Log("no call was on the victim when it was killed: the test shows less than it could")
	}
}

// changed has the killed instance come back, another stop in order and a fourth one come, under load: no call fails.
func (l *choosingLab) changed(caller *player, dead, leaver *lanInstance) {
	t := l.t
	t.Helper()
	within := 3 * time.Second
	if !pace.Long() {
		within = 20 * time.Second
	}
	caller.tell("load")
	time.Sleep(time.Second)
	dead.start()
	dead.awaitReady()
	if took := dead.awaitCall(); took > within {
		t.Errorf("it got its first call %v after its start", took)
	}
	time.Sleep(time.Second)
	leaver.tell("stop")
	if said := leaver.hear(30 * time.Second); said != "closed <nil>" {
		t.Errorf("the end of an instance in order: %s", said)
	}
	time.Sleep(2 * time.Second)
	added := l.instance()
	added.awaitReady()
	added.awaitCall()
	time.Sleep(2 * time.Second)
	result := l.told(caller, "stop")
	failed := 0
	for _, c := range result {
		if c.Err != "" {
			failed++
			t.Errorf("a call failed (repeatable: %v): %s", c.Repeatable, c.Err)
		}
	}
	t.Logf("one restarted, one stopped and one added under 500 calls/s: %d of %d calls failed", failed, len(result))
}

// A choosingLab is a LAN with instances of a service.
type choosingLab struct {
	t       *testing.T
	bridge  *netns.Bridge
	network string
}

// A madeCall is one call of the caller.
type madeCall struct {
	At         time.Time
	Who        string // answered
	Err        string
	Repeatable bool
}

// told tells the caller something and returns the calls that it made.
func (l *choosingLab) told(caller *player, what string) []madeCall {
	l.t.Helper()
	file := filepath.Join(l.t.TempDir(), "calls")
	caller.tell(what + " " + file)
	caller.hear(3 * time.Minute)
	text, err := os.ReadFile(file)
	if err != nil {
		l.t.Fatal(err)
	}
	var out []madeCall
	if err := json.Unmarshal(text, &out); err != nil {
		l.t.Fatal(err)
	}
	return out
}

// A lanInstance is a host of the lab with an instance, which keeps its identity.
type lanInstance struct {
	*player
	lab  *choosingLab
	host *netns.Host
	home string

	began time.Time
	id    string
	pid   int
}

// instance adds a host with an instance that starts.
func (l *choosingLab) instance() *lanInstance {
	l.t.Helper()
	i := &lanInstance{lab: l, host: l.bridge.Host(), home: filepath.Join(l.t.TempDir(), "home")}
	i.start()
	return i
}

func (i *lanInstance) start() {
	i.lab.t.Helper()
	i.began = time.Now()
	i.player = play(i.lab.t, i.host, "instance", lanNetworkEnv+"="+i.lab.network, lanHomeEnv+"="+i.home)
}

func (i *lanInstance) awaitReady() {
	i.lab.t.Helper()
	said := i.hear(30 * time.Second)
	if _, err := fmt.Sscanf(said, "ready %s %d", &i.id, &i.pid); err != nil {
		i.lab.t.Fatalf("an instance says %q", said)
	}
}

// awaitCall waits for the first call, and returns how long after the start of the process it came.
func (i *lanInstance) awaitCall() time.Duration {
	i.lab.t.Helper()
	i.hear(30 * time.Second)
	took := time.Since(i.began)
	i.lab.t.Logf("the first call of an instance came %v after the start of its process", took.Round(time.Millisecond))
	return took
}

// kill ends the process as kill -9 does, and returns when.
func (i *lanInstance) kill() time.Time {
	i.lab.t.Helper()
	at := time.Now()
	if err := syscall.Kill(i.pid, syscall.SIGKILL); err != nil {
		i.lab.t.Fatal(err)
	}
	return at
}

// lanNode makes a node as it is by default, found by multicast DNS. It runs in a network namespace only.
func lanNode(opts ...p2p.Option) *p2p.Node {
	return p2p.NewNode(":0", append([]p2p.Option{p2p.WithNetwork(os.Getenv(lanNetworkEnv)), p2p.WithLogger(slog.New(slog.DiscardHandler))}, opts...)...)
}

// busy is an instance that works for as long as the name that it is given says.
type busy struct {
	pb.UnimplementedGreeterServiceServer
	node  *p2p.Node
	first sync.Once
}

func (b *busy) Greet(ctx context.Context, req *pb.GreetRequest) (*pb.GreetResponse, error) {
	b.first.Do(func() { say("called") })
	d, err := time.ParseDuration(req.GetName())
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(d):
		return &pb.GreetResponse{Text: b.node.ID().String()}, nil
	}
}

// playInstance serves until it is told to stop, or nobody listens any longer.
func playInstance(t *testing.T) {
	node := lanNode(p2p.WithHome(os.Getenv(lanHomeEnv)))
	pb.RegisterGreeterServiceServer(node, &busy{node: node})
	if err := node.StartServer(); err != nil {
		t.Fatal(err)
	}
	say("ready %s %d", node.ID(), os.Getpid())
	bufio.NewScanner(os.Stdin).Scan()
	say("closed %v", node.Close())
}

// playCaller does what it is told: "await N" instances, "spread N FILE", "load", "stop FILE".
func playCaller(t *testing.T) {
	node := lanNode()
	if err := node.StartServer(); err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	var stop func() []madeCall
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var count int
		var file string
		words := strings.Fields(in.Text())
		switch words[0] {
		case "await":
			_, _ = fmt.Sscan(words[1], &count)
			over, cancel := context.WithCancel(t.Context())
			cancel()
			poll.Until(t, 20*time.Second, func() string {
				known := 0
				for _, err := range node.Instances(over, greeterName) {
					if err == nil {
						known++
					}
				}
				if known < count {
					return fmt.Sprintf("%d instances are known", known)
				}
				return ""
			})
			say("known")
			continue
		case "load":
			stop = callSteadily(t, node)
			continue
		case "spread":
			_, _ = fmt.Sscan(words[1], &count)
			file = words[2]
			stop = func() []madeCall { return callOften(t, node, count) }
		case "stop":
			file = words[1]
		}
		text, err := json.Marshal(stop())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		say("written")
	}
}

// callOnce makes a call that takes a while.
func callOnce(t *testing.T, node *p2p.Node, takes time.Duration, opts ...grpc.CallOption) madeCall {
	made := madeCall{At: time.Now(), Repeatable: len(opts) > 0}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	reply, err := pb.NewGreeterServiceClient(node).Greet(ctx, &pb.GreetRequest{Name: takes.String()}, opts...)
	if err != nil {
		made.Err = err.Error()
	}
	made.Who = reply.GetText()
	return made
}

// callOften makes so many calls, a few at once.
func callOften(t *testing.T, node *p2p.Node, count int) []madeCall {
	out := make([]madeCall, count)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(count); i = next.Add(1) - 1 {
				out[i] = callOnce(t, node, 0)
			}
		})
	}
	wg.Wait()
	return out
}

// callSteadily makes 500 calls a second, every other one of them repeatable, until stop is called.
func callSteadily(t *testing.T, node *p2p.Node) (stop func() []madeCall) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var out []madeCall
	wg.Go(func() {
		// When the machine was busy elsewhere the calls that are due are made at once.
		for i, begin := 0, time.Now(); ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(begin.Add(time.Duration(i) * 2 * time.Millisecond))):
			}
			wg.Go(func() {
				var opts []grpc.CallOption
				if i%2 == 0 {
					opts = append(opts, p2p.Repeatable())
				}
				made := callOnce(t, node, work, opts...)
				mu.Lock()
				defer mu.Unlock()
				out = append(out, made)
			})
		}
	})
	return func() []madeCall {
		cancel()
		wg.Wait()
		return out
	}
}
