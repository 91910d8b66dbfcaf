package dht

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p-kbucket/peerdiversity"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/discovery"
)

func newID(tb testing.TB) peer.ID {
	tb.Helper()
	_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// liar connects a member to n that answers every question with the peers given, as providers and as closer ones.
func (b *bubble) liar(n *node, peers []peer.AddrInfo) (h *node) {
	b.t.Helper()
	return b.slowLiar(n, peers, 0)
}

// slowLiar is a liar that takes its time for each answer.
func (b *bubble) slowLiar(n *node, peers []peer.AddrInfo, pause time.Duration) (h *node) {
	b.t.Helper()
	l := &node{host: b.net.Host()}
	l.host.SetStreamHandler(testMember, func(s network.Stream) { _ = s.Reset() })
	l.host.SetStreamHandler(Protocol("test"), func(s network.Stream) {
		defer s.Close()
		var req pb.Message
		if pbio.NewDelimitedReader(s, 1<<20).ReadMsg(&req) != nil {
			return
		}
		select {
		case <-time.After(pause):
		case <-b.ctx.Done(): // the test is over
			return
		}
		res := pb.NewMessage(req.GetType(), req.GetKey(), 0)
		res.CloserPeers, res.ProviderPeers = pb.RawPeerInfosToPBPeers(peers), pb.RawPeerInfosToPBPeers(peers)
		_ = pbio.NewDelimitedWriter(s).WriteMsg(res)
	})
	b.connect(l, n)
	return l
}

func TestHostile_AddressesThatNobodyMayNameAreNotKept(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		n := b.node()
		var bad []peer.AddrInfo
		for i := range 100 {
			info := peer.AddrInfo{ID: newID(t)}
			for _, ip := range []string{"127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "255.255.255.255"} {
				info.Addrs = append(info.Addrs, ma.StringCast(fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", ip, 1+i)))
			}
			bad = append(bad, info)
		}
		many := peer.AddrInfo{ID: newID(t)}
		for i := range 100 {
			many.Addrs = append(many.Addrs, ma.StringCast(fmt.Sprintf("/ip4/10.200.0.1/udp/%d/quic-v1", 1+i)))
		}
		b.liar(n, append([]peer.AddrInfo{many}, bad...))
		got := b.find(n, service)
		for _, info := range bad {
			if addrs := n.host.Peerstore().Addrs(info.ID); len(addrs) > 0 {
				t.Fatalf("%v are kept, though they came from another machine", addrs)
			}
			if _, ok := got[info.ID]; ok {
				t.Fatal("a peer without a usable address is found")
			}
		}
		if addrs := got[many.ID].Addrs; len(addrs) == 0 || len(addrs) > 16 {
			t.Errorf("%d addresses of one peer", len(addrs))
		}
		if len(got) > MaxFound {
			t.Errorf("%d peers are found", len(got))
		}
	})
}

// send sends a message from h to n and tells whether it was taken.
func (b *bubble) send(h, n *node, msg *pb.Message) error {
	b.t.Helper()
	s, err := h.host.NewStream(b.ctx, n.host.ID(), Protocol("test"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer s.Close()
	if err := pbio.NewDelimitedWriter(s).WriteMsg(msg); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	_, err = io.ReadAll(s)
	return err
}

func TestHostile_NobodySpeaksForOthers(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		n, victim := b.node(), newID(t)
		l := b.liar(n, nil)
		time.Sleep(time.Second)
		at := key("test", service)
		msg := pb.NewMessage(pb.Message_ADD_PROVIDER, at.Hash(), 0)
		msg.ProviderPeers = pb.RawPeerInfosToPBPeers([]peer.AddrInfo{{ID: victim, Addrs: l.info().Addrs}})
		if err := b.send(l, n, msg); err == nil {
			t.Error("a record of somebody else is taken")
		}
		if got := n.dht.store.len(); got != 0 {
			t.Errorf("%d records", got)
		}
		msg.ProviderPeers = pb.RawPeerInfosToPBPeers([]peer.AddrInfo{{ID: l.host.ID(), Addrs: l.info().Addrs}})
		if err := b.send(l, n, msg); err != nil {
			t.Errorf("its own record: %v", err)
		}
		if got := n.dht.store.len(); got != 1 {
			t.Errorf("%d records, want its own", got)
		}
	})
}

func TestHostile_AFloodIsCutOff(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		n := b.node()
		l := b.liar(n, nil)
		time.Sleep(time.Second)
		answered := 0
		for range 2 * requestBurst {
			if b.send(l, n, pb.NewMessage(pb.Message_FIND_NODE, []byte(l.host.ID()), 0)) == nil {
				answered++
			}
		}
		if answered < requestBurst || answered > requestBurst+requestBurst/2 {
			t.Errorf("%d requests answered, want about %d", answered, requestBurst)
		}
		msg := pb.NewMessage(pb.Message_FIND_NODE, make([]byte, 2*maxRequest), 0)
		time.Sleep(time.Minute)
		if b.send(l, n, msg) == nil {
			t.Error("a request that is too large is answered")
		}
	})
}

// crowd opens as many streams to n as one peer may have, and says nothing more on any of them.
func (b *bubble) crowd(n *node) {
	b.t.Helper()
	h := b.net.Host()
	h.SetStreamHandler(testMember, func(s network.Stream) { _ = s.Reset() })
	b.connect(&node{host: h}, n)
	for range maxStreamsPerPeer {
		s, err := h.NewStream(b.ctx, n.host.ID(), Protocol("test"))
		if err != nil {
			b.t.Fatal(err)
		}
		if _, err := s.Write([]byte{100}); err != nil { // the length of what does not come
			b.t.Fatal(err)
		}
	}
}

func (n *node) guests() int {
	n.dht.door.mu.Lock()
	defer n.dht.door.mu.Unlock()
	return n.dht.door.n
}

func TestHostile_AFewWhoFillTheDoorKeepNobodyOut(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		n := b.node()
		honest := b.liar(n, nil)
		time.Sleep(10 * time.Second)
		for range maxStreams / maxStreamsPerPeer {
			b.crowd(n)
		}
		if synctest.Wait(); n.guests() != maxStreams {
			t.Fatalf("%d streams are open, want %d", n.guests(), maxStreams)
		}
		for range 2 * maxStreams {
			if err := b.send(honest, n, pb.NewMessage(pb.Message_FIND_NODE, []byte(n.host.ID()), 0)); err != nil {
				t.Fatalf("an honest request: %v", err)
			}
		}
		b.crowd(n) // one more of them takes from the others
		synctest.Wait()
		open := 0
		for _, c := range n.host.Network().Conns() {
			for _, s := range c.GetStreams() {
				if s.Protocol() == n.dht.proto {
					open++
				}
			}
		}
		if open > maxStreams {
			t.Errorf("%d streams are open, want at most %d", open, maxStreams)
		}
	})
}

func TestHostile_WhoSaysNothingIsNotWaitedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		n := b.node()
		time.Sleep(10 * time.Second)
		b.crowd(n)
		if synctest.Wait(); n.guests() != maxStreamsPerPeer {
			t.Fatalf("%d streams are open, want %d", n.guests(), maxStreamsPerPeer)
		}
		time.Sleep(requestTimeout)
		if synctest.Wait(); n.guests() != 0 {
			t.Errorf("after %v %d streams are open", requestTimeout, n.guests())
		}
	})
}

func TestHostile_NobodyOnTheLinkLeadsBeyondIt(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		onLink := func(c *settings) { c.keeper = &discovery.KeeperConfig{LinkOnly: true} }
		n, far := b.node(onLink), b.public(nil)
		l := b.liar(n, []peer.AddrInfo{publicInfo(far)})
		if got := b.find(n, service); len(got) > 0 {
			t.Errorf("found %v", got)
		}
		at := key("test", service)
		msg := pb.NewMessage(pb.Message_ADD_PROVIDER, at.Hash(), 0)
		msg.ProviderPeers = pb.RawPeerInfosToPBPeers([]peer.AddrInfo{{ID: l.host.ID(), Addrs: publicInfo(far).Addrs}})
		_ = b.send(l, n, msg) // it may be taken, without the addresses
		if got := n.dht.homes.PeerInfo(l.host.ID()).Addrs; slices.ContainsFunc(got, publicInfo(far).Addrs[0].Equal) {
			t.Errorf("a record says %v", got)
		}
		if conns := far.host.Network().ConnsToPeer(n.host.ID()); len(conns) > 0 {
			t.Errorf("it was dialed at %v", conns[0].LocalMultiaddr())
		}

		nodes := b.line(3, onLink) // among themselves they find each other
		nodes[2].dht.Announce([]string{service})
		b.within(5*time.Second, func() string {
			if info := b.find(nodes[0], service)[nodes[2].host.ID()]; len(info.Addrs) == 0 {
				return "a node of the link is not found"
			}
			return ""
		})
	})
}

func TestStore_IsBounded(t *testing.T) {
	s := newStore(time.Hour)
	put := func(service, peer int) error {
		return s.Put(t.Context(), datastore.NewKey(fmt.Sprintf("/providers/S%d/P%d", service, peer)), []byte{1})
	}
	for i := range 2 * maxPerKey {
		if err := put(0, i); (err == nil) != (i < maxPerKey) {
			t.Fatalf("instance %d: %v", i, err)
		}
	}
	for i := range 2 * maxPerPeer {
		if err := put(1+i, maxPerKey); (err == nil) != (i < maxPerPeer) {
			t.Fatalf("service %d of one peer: %v", i, err)
		}
	}
	for i := range 2 * MaxRecords {
		if err := put(1000+i%5000, 100000+i); err != nil && !errors.Is(err, errFull) {
			t.Fatal(err)
		}
	}
	if n := s.len(); n > MaxRecords {
		t.Errorf("%d records", n)
	}
	res, err := s.Query(t.Context(), query.Query{Prefix: "/providers/"})
	if err != nil {
		t.Fatal(err)
	}
	all, err := res.Rest()
	if err != nil || len(all) != s.len() {
		t.Errorf("%d records of %d, %v", len(all), s.len(), err)
	}
	for _, e := range all {
		if err := s.Delete(t.Context(), datastore.RawKey(e.Key)); err != nil {
			t.Fatal(err)
		}
	}
	if s.len() != 0 || len(s.keys) != 0 || len(s.peers) != 0 {
		t.Errorf("%d records, %d services, %d peers are left", s.len(), len(s.keys), len(s.peers))
	}
}

// at is a network that is connected to everybody at one address.
type at struct {
	network.Network
	addr ma.Multiaddr
}

type connAt struct {
	network.Conn
	addr ma.Multiaddr
}

func (a at) ConnsToPeer(peer.ID) []network.Conn { return []network.Conn{connAt{addr: a.addr}} }
func (c connAt) RemoteMultiaddr() ma.Multiaddr  { return c.addr }

func TestDiversity_NoAddressFillsABucket(t *testing.T) {
	for addr, want := range map[string]int{
		"/ip4/10.0.0.7/tcp/1":    maxPerGroup,
		"/ip4/198.18.7.1/tcp/1":  maxPerGroup,
		"/ip4/127.0.0.1/tcp/1":   10 * bucketSize,
		"/ip6/fd00::7/tcp/1":     maxPerGroup,
		"/ip6/2001:db8::7/tcp/1": maxPerGroup,
	} {
		v := newDiversity(at{addr: ma.StringCast(addr)})
		var in []peerdiversity.PeerGroupInfo
		for i := range 10 * bucketSize {
			info := peerdiversity.PeerGroupInfo{Id: peer.ID(fmt.Sprint(i)), Cpl: 3, IPGroupKey: "group"}
			if len(v.PeerAddresses(info.Id)) != 1 {
				t.Fatal("no address")
			}
			if v.Allow(info) {
				v.Increment(info)
				in = append(in, info)
			}
		}
		if len(in) != want {
			t.Errorf("%s: %d peers in a bucket, want %d", addr, len(in), want)
		}
		for _, info := range in {
			v.Decrement(info)
		}
		if len(v.groups)+len(v.count) != 0 {
			t.Errorf("%s: %d groups are left", addr, len(v.count))
		}
	}
}

// stream is a stream of bytes.
type stream struct {
	network.Stream
	io.Reader
	reset bool
}

func (s *stream) Read(b []byte) (int, error) { return s.Reader.Read(b) }

func (s *stream) Reset() error { s.reset = true; return nil }

func FuzzFramed(f *testing.F) {
	f.Add([]byte{3, 1, 2, 3, 0, 1, 9}, 2)
	f.Add(binary.AppendUvarint(nil, maxRequest+1), 1)
	f.Add(append(binary.AppendUvarint(nil, maxRequest), make([]byte, maxRequest)...), 100)
	f.Add(bytes.Repeat([]byte{0x80}, 20), 3)
	f.Fuzz(func(t *testing.T, data []byte, chunk int) {
		s := &stream{Reader: bytes.NewReader(data)}
		fr := &framed{Stream: s}
		var got []byte
		b := make([]byte, 1+max(chunk, -chunk, 0)%64)
		for {
			n, err := fr.Read(b)
			if got = append(got, b[:n]...); err != nil {
				if errors.Is(err, errTooLarge) != s.reset {
					t.Errorf("reset %t after %v", s.reset, err)
				}
				break
			}
		}
		// What was let through has no message that is too large.
		for rest := got; len(rest) > 0; {
			size, n := binary.Uvarint(rest)
			if n <= 0 {
				break
			}
			if size > maxRequest {
				t.Fatalf("a message of %d bytes was let through", size)
			}
			rest = rest[min(len(rest), n+int(size)):]
		}
		if !s.reset && !bytes.Equal(got, data) {
			t.Error("bytes were changed")
		}
	})
}
