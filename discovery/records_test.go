package discovery

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
)

func testKey(tb testing.TB) crypto.PrivKey {
	tb.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// signed returns a record about p, signed by key.
func signed(tb testing.TB, key crypto.PrivKey, p peer.ID, at time.Time, addrs ...string) []byte {
	tb.Helper()
	rec := &peer.PeerRecord{PeerID: p, Seq: uint64(at.UnixNano())}
	for _, s := range addrs {
		rec.Addrs = append(rec.Addrs, addrOf(s))
	}
	env, err := record.Seal(rec, key)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := env.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// quietHost is a host without a socket.
func quietHost(tb testing.TB) corehost.Host {
	tb.Helper()
	h, err := host.New(host.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = h.Close() })
	return h
}

func TestKeeper_FoundRecords(t *testing.T) {
	now := time.Now()
	const place = "/ip4/10.1.1.1/tcp/1"
	from := Origin{Source: "exchange", Scope: Private}
	for _, tc := range []struct {
		name string
		make func(key crypto.PrivKey, id peer.ID) []byte
		want int
	}{
		{"good", func(k crypto.PrivKey, id peer.ID) []byte { return signed(t, k, id, now, place) }, 1},
		{"another's signature", func(_ crypto.PrivKey, id peer.ID) []byte { return signed(t, testKey(t), id, now, place) }, 0},
		{"about another", func(k crypto.PrivKey, _ peer.ID) []byte { return signed(t, k, testID(t), now, place) }, 0},
		{"expired", func(k crypto.PrivKey, id peer.ID) []byte {
			return signed(t, k, id, now.Add(-MaxRecordAge-time.Hour), place)
		}, 0},
		{"from the future", func(k crypto.PrivKey, id peer.ID) []byte { return signed(t, k, id, now.Add(48*time.Hour), place) }, 0},
		{"no time", func(k crypto.PrivKey, id peer.ID) []byte { return signed(t, k, id, time.Unix(0, 0), place) }, 0},
		{"one bit off", func(k crypto.PrivKey, id peer.ID) []byte {
			b := signed(t, k, id, now, place)
			b[len(b)-1] ^= 1
			return b
		}, 0},
		{"too large", func(k crypto.PrivKey, id peer.ID) []byte {
			var many []string
			for i := range 500 {
				many = append(many, fmt.Sprintf("/ip4/10.1.%d.%d/tcp/1", i/250, i%250))
			}
			return signed(t, k, id, now, many...)
		}, 0},
		{"narrower than the link", func(k crypto.PrivKey, id peer.ID) []byte { return signed(t, k, id, now, "/ip4/127.0.0.1/tcp/1") }, 0},
		{"empty", func(crypto.PrivKey, peer.ID) []byte { return nil }, 0},
		{"garbage", func(crypto.PrivKey, peer.ID) []byte { return []byte("garbage") }, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := NewKeeper(quietHost(t), KeeperConfig{Logger: quiet()})
			key := testKey(t)
			id, err := peer.IDFromPrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			if got := k.FoundRecords([][]byte{tc.make(key, id)}, from); got != tc.want {
				t.Errorf("%d records accepted, want %d", got, tc.want)
			}
			if got := len(k.Peers()); got != tc.want {
				t.Errorf("%d peers known, want %d", got, tc.want)
			}
		})
	}
}

func TestKeeper_FoundRecords_OwnOlderAndTooMany(t *testing.T) {
	h := quietHost(t)
	k := NewKeeper(h, KeeperConfig{Logger: quiet()})
	from := Origin{Source: "exchange", Scope: Private}
	now := time.Now()
	own := signed(t, h.Peerstore().PrivKey(h.ID()), h.ID(), now, "/ip4/10.1.1.1/tcp/1")
	if got := k.FoundRecords([][]byte{own}, from); got != 0 {
		t.Errorf("the node's own record was accepted")
	}
	key := testKey(t)
	id, _ := peer.IDFromPrivateKey(key)
	k.FoundRecords([][]byte{signed(t, key, id, now, "/ip4/10.1.1.1/tcp/1")}, from)
	if got := k.FoundRecords([][]byte{signed(t, key, id, now.Add(-time.Minute), "/ip4/10.6.6.6/tcp/1")}, from); got != 0 {
		t.Error("an older record replaced a newer one")
	}
	var many [][]byte
	for range MaxRecords + 10 {
		key := testKey(t)
		id, _ := peer.IDFromPrivateKey(key)
		many = append(many, signed(t, key, id, now, "/ip4/10.1.1.1/tcp/1"))
	}
	if got := k.FoundRecords(many, from); got != MaxRecords {
		t.Errorf("%d records accepted, want %d", got, MaxRecords)
	}
}

func TestCore_RecordsAreOfConnectedMembersAndOfUse(t *testing.T) {
	now := time.Now()
	c := newCore("self", KeeperConfig{Allow: func(p peer.ID) bool { return p != "denied" }}, testRand())
	add := func(p peer.ID, member bool, at time.Time, a string) {
		c.now = now
		c.connUp(p, 1, true)
		c.identified(p, identity{member: member, addrs: []ma.Multiaddr{addrOf(a)}, record: []byte(p), seq: uint64(at.UnixNano())})
	}
	add("public", true, now, "/ip4/9.9.9.9/tcp/1")
	add("private", true, now, "/ip4/10.0.0.1/tcp/1")
	add("loopback", true, now, "/ip4/127.0.0.1/tcp/1")
	add("old", true, now.Add(-MaxRecordAge-time.Hour), "/ip4/9.9.9.8/tcp/1")
	add("stranger", false, now, "/ip4/9.9.9.7/tcp/1")
	add("denied", true, now, "/ip4/9.9.9.6/tcp/1")
	add("gone", true, now, "/ip4/9.9.9.5/tcp/1")
	c.connDown("gone", 0, closedUnknown)
	for to, want := range map[Scope]int{Public: 1, Private: 2, Loopback: 3} {
		if got := c.records(now, 100, "", to); len(got) != want {
			t.Errorf("to a %v peer: %q, want %d", to, got, want)
		}
	}
	if got := c.records(now, 100, "public", Public); len(got) != 0 {
		t.Errorf("the asker was told of itself: %q", got)
	}
	if got := c.records(now, 2, "", Loopback); len(got) != 2 {
		t.Errorf("the limit of 2 gave %d", len(got))
	}
}

func FuzzOpenRecord(f *testing.F) {
	// The fuzzer's processes each come here: the key must be the same in all.
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		f.Fatal(err)
	}
	id, _ := peer.IDFromPrivateKey(key)
	now := time.Now()
	f.Add(signed(f, key, id, now, "/ip4/10.1.1.1/tcp/1"))
	f.Add([]byte{})
	f.Add([]byte("garbage"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := openRecord(b, now)
		if err == nil && rec.PeerID != id {
			t.Fatalf("a record of %s was forged", rec.PeerID)
		}
	})
}
