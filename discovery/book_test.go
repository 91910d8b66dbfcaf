package discovery

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// memStore is a home in memory.
type memStore struct {
	mu     sync.Mutex
	files  map[string][]byte
	writes int
	full   bool
}

func (s *memStore) Dir() string { return "/home/of/node" }

func (s *memStore) ReadFile(name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return b, nil
}

func (s *memStore) WriteFile(name string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return errors.New("no space left on device")
	}
	if s.files == nil {
		s.files = make(map[string][]byte)
	}
	s.files[name] = data
	s.writes++
	return nil
}

func openBook(tb testing.TB, s *memStore) *Book {
	tb.Helper()
	b, err := OpenBook(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func TestBook_RemembersOverRestarts(t *testing.T) {
	var s memStore
	p, q := testID(t), testID(t)
	b := openBook(t, &s)
	must(t, b.SetPin("192.0.2.1:9388", p))
	must(t, b.PinName("anna", q))
	must(t, b.remember([]peer.AddrInfo{{ID: p, Addrs: []ma.Multiaddr{addrOf("/ip4/192.0.2.1/tcp/9388")}}}))
	must(t, b.remember([]peer.AddrInfo{{ID: q, Addrs: []ma.Multiaddr{addrOf("/ip4/192.0.2.2/tcp/9388")}}}))

	b = openBook(t, &s)
	if got, ok := b.Pin("192.0.2.1:9388"); !ok || got != p {
		t.Errorf("the pin is %v, %v", got, ok)
	}
	if got, ok := b.ByName("anna"); !ok || got != q || b.Name(q) != "anna" || b.Name(p) != "" {
		t.Errorf("anna is %v, %v; %v has the name %q", got, ok, q, b.Name(q))
	}
	if got := b.Peers(); len(got) != 2 || got[0].ID != q || got[1].ID != p || len(got[0].Addrs) != 1 {
		t.Errorf("the peers are %v", got)
	}
	writes := s.writes
	must(t, b.SetPin("192.0.2.1:9388", p))
	if s.writes != writes {
		t.Error("what was known was written again")
	}
	known, err := b.Forget(p)
	if _, pinned := b.Pin("192.0.2.1:9388"); !known || err != nil || pinned || len(b.Peers()) != 1 {
		t.Errorf("after forgetting: %v, %v, pinned %v", known, err, pinned)
	}
	if known, _ := b.Forget(p); known {
		t.Error("forgotten twice")
	}
	must(t, b.UnpinName("anna"))
	if _, ok := openBook(t, &s).ByName("anna"); ok {
		t.Error("the name is still there")
	}
}

func TestBook_LoopbackIsNeverPinned(t *testing.T) {
	b := openBook(t, &memStore{})
	for _, at := range []string{"localhost:9388", "127.0.0.1:9388", "[::1]:9388", "127.9.9.9:1"} {
		must(t, b.SetPin(at, testID(t)))
		if _, ok := b.Pin(at); ok {
			t.Errorf("%s was pinned", at)
		}
	}
}

func TestBook_CorruptIsAnErrorAndKept(t *testing.T) {
	var s memStore
	b := openBook(t, &s)
	must(t, b.SetPin("192.0.2.1:9388", testID(t)))
	must(t, b.PinName("anna", testID(t)))
	whole := s.files[bookFile]
	for n := range len(whole) - 1 { // without the last line feed it is whole
		s.files[bookFile] = whole[:n]
		writes := s.writes
		_, err := OpenBook(&s)
		var be *BookError
		if !errors.As(err, &be) || !strings.Contains(err.Error(), "/home/of/node/"+bookFile) || !strings.Contains(err.Error(), "move it away") {
			t.Fatalf("%d of %d bytes: error %v", n, len(whole), err)
		}
		if s.writes != writes {
			t.Fatal("the book was overwritten")
		}
	}
	for _, text := range []string{
		`null`, `[]`, `{"version":2}`, `{"version":1,"pins":{"a":"x"}}`, `{"version":1,"names":{"a/b":"` + testID(t).String() + `"}}`,
		`{"version":1,"pins":{"a":""}}`, `{"version":1,"new":1}`, `{"version":1} {}`, `{"version":1,"peers":[{"id":"","addrs":[]}]}`,
	} {
		s.files[bookFile] = []byte(text)
		if _, err := OpenBook(&s); err == nil {
			t.Errorf("%s was taken for a book", text)
		}
	}
}

func TestBook_Names(t *testing.T) {
	b := openBook(t, &memStore{})
	p := testID(t)
	for _, name := range []string{
		"", strings.Repeat("a", maxName+1), "a b", "a/b", "a@b", "a:1", "a\x1b[0m", "a\u202eb", "\xff", p.String(),
	} {
		if err := b.PinName(name, p); err == nil {
			t.Errorf("the name %q was accepted", name)
		}
	}
	if err := b.PinName("anna", ""); err == nil {
		t.Error("a name for nobody was accepted")
	}
}

func TestBook_Caps(t *testing.T) {
	b := openBook(t, &memStore{})
	p := testID(t)
	b.data.Pins = make(map[string]peer.ID)
	for i := range maxPins {
		b.data.Pins[fmt.Sprint(i)] = p
		b.data.Names[fmt.Sprint("n", i)] = p
	}
	if err := b.SetPin("192.0.2.1:1", p); err == nil {
		t.Error("one pin too many was kept")
	}
	if err := b.PinName("anna", p); err == nil {
		t.Error("one name too many was kept")
	}
	var infos []peer.AddrInfo
	for range maxRemembered + 50 {
		infos = append(infos, peer.AddrInfo{ID: testID(t), Addrs: []ma.Multiaddr{addrOf("/ip4/9.9.9.9/tcp/1")}})
	}
	must(t, b.remember(infos))
	if got := len(b.Peers()); got != maxRemembered {
		t.Errorf("%d peers remembered, want %d", got, maxRemembered)
	}
}

func TestBook_FullDiskIsAnError(t *testing.T) {
	b := openBook(t, &memStore{full: true})
	if err := b.PinName("anna", testID(t)); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("error %v", err)
	}
}

func FuzzParseBook(f *testing.F) {
	f.Add([]byte(`{"version":1,"pins":{},"names":{},"peers":[]}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(_ *testing.T, raw []byte) { _, _ = parseBook(raw) })
}
