package broadcast

import (
	"context"
	"encoding/binary"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// forge makes a GossipSub message by an author, with its signature.
func forge(t *testing.T, author corehost.Host, topic string, seq uint64, e *Envelope) *pb.Message {
	t.Helper()
	m := &pb.Message{
		From: []byte(author.ID()), Data: marshal(t, e), Topic: new(topic),
		Seqno: binary.BigEndian.AppendUint64(nil, seq),
	}
	key := author.Peerstore().PrivKey(author.ID())
	sig, err := key.Sign(append([]byte("libp2p-pubsub:"), marshal(t, m)...))
	must(t, err)
	m.Signature = sig
	m.Key, err = crypto.MarshalPublicKey(key.GetPublic()) // the ID may be too short for it
	must(t, err)
	return m
}

// attacker writes to a node what it wants.
type attacker struct {
	t      *testing.T
	self   corehost.Host
	target corehost.Host
	s      network.Stream
	opened int
}

// send writes messages and tells whether the stream took them; a broken stream is opened again.
func (a *attacker) send(messages ...*pb.Message) bool {
	a.t.Helper()
	if a.s == nil {
		ctx, cancel := context.WithTimeout(a.t.Context(), time.Second)
		defer cancel()
		s, err := a.self.NewStream(ctx, a.target.ID(), MeshProtocol("test"))
		if err != nil {
			return false
		}
		a.s = s
		a.opened++
	}
	data := marshal(a.t, &pb.RPC{Publish: messages})
	if _, err := a.s.Write(append(binary.AppendUvarint(nil, uint64(len(data))), data...)); err != nil {
		_ = a.s.Reset()
		a.s = nil
		return false
	}
	return true
}

func (w *world) cutOff(node int, h corehost.Host) bool {
	g := w.buses[node].mesh.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.guests[h.ID()] != nil && time.Now().Before(g.guests[h.ID()].until)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestFlood_IsCutOffWhileTheOthersAreHeard(t *testing.T) {
	for _, kind := range []struct {
		name string
		make func(t *testing.T, w *world, self corehost.Host, n uint64) *pb.Message
	}{
		{"invalid signatures", func(t *testing.T, w *world, self corehost.Host, n uint64) *pb.Message {
			t.Helper()
			m := forge(t, self, wireTopic("test", "news"), 1, message(t, n))
			m.Seqno = binary.BigEndian.AppendUint64(nil, n+2)
			return m
		}},
		{"oversized", func(t *testing.T, w *world, self corehost.Host, n uint64) *pb.Message {
			t.Helper()
			return &pb.Message{From: []byte(self.ID()), Data: make([]byte, MaxMessage+4*overhead), Topic: new(wireTopic("test", "news")), Signature: []byte{1}}
		}},
		{"valid ones", func(t *testing.T, w *world, self corehost.Host, n uint64) *pb.Message {
			t.Helper()
			return forge(t, self, wireTopic("test", "news"), n, message(t, n))
		}},
		{"another's old ones", func(t *testing.T, w *world, _ corehost.Host, n uint64) *pb.Message {
			t.Helper()
			e := message(t, n)
			e.Time = time.Now().Add(-6 * time.Hour).UnixNano()
			return forge(t, w.hosts[2], wireTopic("test", "news"), n, e)
		}},
		{"another's of two minutes ago", func(t *testing.T, w *world, _ corehost.Host, n uint64) *pb.Message {
			t.Helper()
			e := message(t, n)
			e.Time = time.Now().Add(-MaxAge - time.Second).UnixNano()
			return forge(t, w.hosts[2], wireTopic("test", "news"), n, e)
		}},
		{"what is no message", func(t *testing.T, w *world, self corehost.Host, n uint64) *pb.Message {
			t.Helper()
			return forge(t, self, wireTopic("test", "news"), n, &Envelope{Session: n})
		}},
	} {
		t.Run(kind.name, func(t *testing.T) { inTime(t, func(t *testing.T) { flood(t, kind.make) }) })
	}
}

func message(t *testing.T, n uint64) *Envelope {
	t.Helper()
	body, err := anypb.New(say("flood"))
	must(t, err)
	return &Envelope{Session: 1, Sequence: n + 1, Time: time.Now().UnixNano(), Body: body}
}

func flood(t *testing.T, forged func(t *testing.T, w *world, self corehost.Host, n uint64) *pb.Message) {
	t.Helper()
	w := newWorld(t, 7, nil)
	w.hosts, w.buses = w.hosts[:6], w.buses[:6] // the last one is the attacker
	w.ring(1, 2)
	var topics []*Topic[text]
	var subs []*Subscription[text]
	for _, b := range w.buses {
		topics = append(topics, join[text](t, b, "news"))
		subs = append(subs, subscribe(t, topics[len(topics)-1], 20_000))
	}
	time.Sleep(3 * time.Second)
	self := w.net.Host(w.net.Peers()[0])
	for _, h := range w.net.Hosts() {
		if h != w.hosts[0] && !slices.Contains(w.hosts, h) {
			self = h
		}
	}
	_, err := w.net.ConnectPeers(self.ID(), w.hosts[0].ID())
	must(t, err)
	before := heap()
	a := &attacker{t: t, self: self, target: w.hosts[0]}
	n, refused, honest := uint64(0), 0, 0
	for i := range 200 { // 2 s, in which 20,000 are sent
		for range 10 {
			var burst []*pb.Message
			for range 10 {
				n++
				if !w.cutOff(0, self) || n%1000 == 0 { // what is refused needs no signature
					burst = append(burst, forged(t, w, self, n))
				}
			}
			if len(burst) > 0 && !a.send(burst...) {
				refused++
			}
		}
		if i%10 == 0 {
			must(t, topics[3].Publish(t.Context(), say("honest")))
			honest++
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !w.cutOff(0, self) {
		t.Error("the attacker is not cut off")
	}
	time.Sleep(3 * time.Second)
	synctest.Wait()
	grown := int64(heap()) - int64(before)
	for i, s := range subs {
		got, flooded := 0, 0
		for _, m := range heardBy(s) {
			if m == "honest" {
				got++
			} else {
				flooded++
			}
		}
		if got != honest || s.Missed() > 0 {
			t.Errorf("node %d heard %d of %d honest messages", i, got, honest)
		}
		if flooded > heardBurst+heardRate {
			t.Errorf("node %d heard %d of the flood", i, flooded)
		}
		if i == 1 {
			t.Logf("of %d flooding messages %d passed the first node; %d streams opened, %d writes refused; the heap grew by %d KiB", n, flooded, a.opened, refused, grown>>10)
		}
	}
	for i := 1; i < len(w.hosts); i++ {
		for j, h := range w.hosts {
			if w.cutOff(i, h) {
				t.Errorf("node %d cut off the honest %d", i, j)
			}
		}
	}
	if grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

// GossipSub holds what is rejected against all who have sent the message. Where honest nodes may differ, nothing is: one
// that has passed it on is not at fault, whoever else sent it.
func TestValidate_OnlyWhatAllRejectIsRejected(t *testing.T) {
	inTime(t, func(t *testing.T) {
		var stranger peer.ID
		w := newWorld(t, 3, func(i int, c *Config) {
			c.Allow = func(p peer.ID, _ string) bool { return p != stranger }
		})
		w.ring(1)
		room := join[text](t, w.buses[0], "news").room
		author, other := w.hosts[1].ID(), w.hosts[2].ID()
		verdict := func(via, from peer.ID, data []byte) pubsub.ValidationResult {
			m := &pubsub.Message{Message: &pb.Message{From: []byte(from), Data: data}}
			return room.validate(t.Context(), via, m)
		}
		encoded := func(n uint64, ago time.Duration) []byte {
			e := message(t, n)
			e.Time = time.Now().Add(-ago).UnixNano()
			data, err := proto.Marshal(e)
			must(t, err)
			return data
		}
		for _, via := range []peer.ID{author, other} {
			if got := verdict(via, author, []byte("no message")); got != pubsub.ValidationReject {
				t.Errorf("what is no message: %v", got)
			}
			for _, ago := range []time.Duration{MaxAge + time.Second, 3 * MaxAge, -MaxAge - time.Second} {
				if got := verdict(via, author, encoded(1, ago)); got != pubsub.ValidationIgnore {
					t.Errorf("of %v ago: %v", ago, got)
				}
			}
		}
		seen := encoded(2, 0)
		if got := verdict(author, author, seen); got != pubsub.ValidationAccept {
			t.Errorf("a good one: %v", got)
		}
		time.Sleep(seenFor + time.Second)
		for _, via := range []peer.ID{author, other} {
			if got := verdict(via, author, seen); got != pubsub.ValidationIgnore {
				t.Errorf("the same again: %v", got)
			}
		}
		last := pubsub.ValidationAccept
		for n := range uint64(heardBurst + 2) {
			last = verdict(author, author, encoded(10+n, 0))
		}
		if last != pubsub.ValidationIgnore {
			t.Errorf("too many: %v", last)
		}
		stranger = author
		if got := verdict(author, author, encoded(5000, 0)); got != pubsub.ValidationIgnore {
			t.Errorf("a stranger's: %v", got)
		}
	})
}

func TestReplay_IsHeardOnceNowAfter121SecondsAndAfterSixHours(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWorld(t, 4, nil)
		w.connect(0, 1) // 2 is the author, 3 the attacker
		var subs []*Subscription[text]
		for _, b := range w.buses[:2] {
			subs = append(subs, subscribe(t, join[text](t, b, "news"), 100))
		}
		time.Sleep(3 * time.Second)
		w.connect(3, 0)
		a := &attacker{t: t, self: w.hosts[3], target: w.hosts[0]}
		said := forge(t, w.hosts[2], wireTopic("test", "news"), 1, message(t, 1))
		for _, after := range []time.Duration{0, 10 * time.Second, 31*time.Second + time.Minute, 121 * time.Second, 10 * time.Minute, 6 * time.Hour} {
			time.Sleep(after)
			a.send(said)
			time.Sleep(5 * time.Second)
		}
		for i, s := range subs {
			if got := heardBy(s); len(got) != 1 {
				t.Errorf("node %d heard it %d times", i, len(got))
			}
		}
		// A node that was started again has forgotten everything, and hears nothing from before.
		said = forge(t, w.hosts[2], wireTopic("test", "news"), 2, message(t, 2))
		a.send(said)
		time.Sleep(2 * time.Second)
		must(t, w.buses[0].Close())
		w.buses[0] = New(w.buses[0].cfg)
		again := subscribe(t, join[text](t, w.buses[0], "news"), 100)
		time.Sleep(time.Second)
		a.s = nil
		if !a.send(said) {
			t.Error("the attacker could not send")
		}
		time.Sleep(5 * time.Second)
		if got := heardBy(again); len(got) != 0 {
			t.Errorf("after a restart it heard %q", got)
		}
		a.send(forge(t, w.hosts[2], wireTopic("test", "news"), 3, message(t, 3)))
		time.Sleep(5 * time.Second)
		if got := heardBy(again); len(got) != 1 {
			t.Errorf("of what is new it heard %q", got)
		}
	})
}
