package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/safetext"
)

const (
	bookFile    = "peers.json"
	bookVersion = 1
	// maxPins, maxNames and maxRemembered bound the book; over them the oldest peers go, and pins and names are refused.
	maxPins       = 1000
	maxNames      = 1000
	maxRemembered = 200
	maxName       = 64
	maxBook       = 4 << 20
)

// Store is a folder that keeps a book's files; *host.Home is one.
type Store interface {
	// Dir is the folder.
	Dir() string
	// ReadFile reads a file of the folder; a missing one matches fs.ErrNotExist.
	ReadFile(name string) ([]byte, error)
	// WriteFile replaces a file of the folder: wholly or not at all.
	WriteFile(name string, data []byte) error
}

// Book is what a node remembers of others from one run to the next: who answered at the addresses it was told to join
// (pins), which peer has which name, and good peers to start with. Its methods may be called concurrently.
type Book struct {
	store Store

	mu   sync.Mutex
	data bookData
	last []byte // as it is in the store
}

// bookData is the file.
type bookData struct {
	Version int                `json:"version"`
	Pins    map[string]peer.ID `json:"pins"`
	Names   map[string]peer.ID `json:"names"`
	Peers   []bookPeer         `json:"peers"`
}

type bookPeer struct {
	ID    peer.ID  `json:"id"`
	Addrs []string `json:"addrs"`
}

// BookError tells what is wrong with a book and what to do about it.
type BookError struct {
	Path string
	Err  error
}

// Error says which file cannot be read, and what to do.
func (e *BookError) Error() string {
	return fmt.Sprintf("discovery: the known peers in %s cannot be read: %s: "+
		"repair the file, or move it away: then the node trusts anew whoever answers where it joins", e.Path, safetext.Clean(e.Err.Error()))
}

// Unwrap returns the cause.
func (e *BookError) Unwrap() error { return e.Err }

// OpenBook reads the book of a home. A missing book is empty. One that cannot be read is a [*BookError] that names the
// file and says what to do, and nothing is overwritten.
func OpenBook(home Store) (*Book, error) {
	b := &Book{store: home}
	raw, err := home.ReadFile(bookFile)
	if err == nil {
		b.data, err = parseBook(raw)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, &BookError{Path: filepath.Join(home.Dir(), bookFile), Err: err}
	}
	b.last = raw
	if b.data.Pins == nil {
		b.data.Pins = make(map[string]peer.ID)
	}
	if b.data.Names == nil {
		b.data.Names = make(map[string]peer.ID)
	}
	return b, nil
}

func parseBook(raw []byte) (bookData, error) {
	var d bookData
	if len(raw) > maxBook {
		return d, fmt.Errorf("it has %d bytes, more than %d", len(raw), maxBook)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return d, err
	}
	if dec.More() {
		return d, errors.New("something follows the end")
	}
	if d.Version != bookVersion {
		return d, fmt.Errorf("it has version %d, this program knows %d", d.Version, bookVersion)
	}
	if len(d.Pins) > maxPins || len(d.Names) > maxNames || len(d.Peers) > maxRemembered {
		return d, errors.New("it has too many entries")
	}
	for what, p := range d.Pins {
		if p.Validate() != nil {
			return d, fmt.Errorf("pin %q has no peer ID", what)
		}
	}
	for name, p := range d.Names {
		if err := errors.Join(checkName(name), p.Validate()); err != nil {
			return d, fmt.Errorf("name %q: %w", name, err)
		}
	}
	for _, p := range d.Peers {
		if p.ID.Validate() != nil {
			return d, errors.New("a peer has no ID")
		}
	}
	return d, nil
}

// save writes the book if it has changed; the caller holds the lock.
func (b *Book) save() error {
	b.data.Version = bookVersion
	raw, err := json.MarshalIndent(b.data, "", "  ")
	if err != nil {
		return fmt.Errorf("discovery: remember peers: %w", err)
	}
	raw = append(raw, '\n')
	if bytes.Equal(raw, b.last) {
		return nil
	}
	if err := b.store.WriteFile(bookFile, raw); err != nil {
		return fmt.Errorf("discovery: remember peers: %w", err)
	}
	b.last = raw
	return nil
}

// Pin returns the peer that is expected at a joined address ("host:port").
func (b *Book) Pin(hostport string) (peer.ID, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.data.Pins[hostport]
	return p, ok
}

// SetPin remembers that p answers at a joined address. Loopback addresses are never pinned: any process of the machine
// may own the port. It returns the error of writing the book.
func (b *Book) SetPin(hostport string, p peer.ID) error {
	if isLoopback(hostport) {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, ok := b.data.Pins[hostport]
	switch {
	case ok && old == p:
		return nil
	case !ok && len(b.data.Pins) >= maxPins:
		return fmt.Errorf("discovery: pin %q: %d addresses are pinned, the most that are kept", hostport, maxPins)
	}
	b.data.Pins[hostport] = p
	return b.save()
}

func isLoopback(hostport string) bool {
	h, _, err := addr.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(h)
	return h == "localhost" || err == nil && addr.IPScope(ip) == addr.Loopback
}

// PinName remembers that a name stands for p, in place of an older one for the name. It returns an error for a name
// that is empty, too long, or could be read as an ID or an address.
func (b *Book) PinName(name string, p peer.ID) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("discovery: name %q: %w", name, err)
	}
	if err := p.Validate(); err != nil {
		return fmt.Errorf("discovery: name %q: %w", name, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.data.Names[name]; !ok && len(b.data.Names) >= maxNames {
		return fmt.Errorf("discovery: name %q: %d names are pinned, the most that are kept", name, maxNames)
	}
	b.data.Names[name] = p
	return b.save()
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("it is empty")
	case len(name) > maxName:
		return fmt.Errorf("it has more than %d bytes", maxName)
	case !utf8.ValidString(name) || safetext.Clean(name) != name:
		return errors.New("it has characters that cannot be printed")
	case strings.ContainsAny(name, "/@: \t"):
		return errors.New("it has a character of addresses (/, @, : or a space)")
	}
	if _, err := peer.Decode(name); err == nil {
		return errors.New("it is a peer ID")
	}
	return nil
}

// UnpinName forgets a name; an unknown one is no error.
func (b *Book) UnpinName(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.data.Names, name)
	return b.save()
}

// ByName returns the peer that a name was pinned to.
func (b *Book) ByName(name string) (peer.ID, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.data.Names[name]
	return p, ok
}

// Name returns the name that was pinned to a peer, the first of several; empty when none was.
func (b *Book) Name(p peer.ID) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	best := ""
	for name, q := range b.data.Names {
		if q == p && (best == "" || name < best) {
			best = name
		}
	}
	return best
}

// Peers returns the remembered peers, the one that was a neighbor last first.
func (b *Book) Peers() []peer.AddrInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]peer.AddrInfo, 0, len(b.data.Peers))
	for _, p := range b.data.Peers {
		info := peer.AddrInfo{ID: p.ID}
		for _, s := range p.Addrs[:min(len(p.Addrs), MaxAddrs)] {
			if a, err := ma.NewMultiaddr(s); err == nil {
				info.Addrs = append(info.Addrs, a)
			}
		}
		if len(info.Addrs) > 0 {
			out = append(out, info)
		}
	}
	return out
}

// remember puts peers at the front of what is remembered.
func (b *Book) remember(infos []peer.AddrInfo) error {
	if len(infos) == 0 {
		return nil
	}
	slices.SortFunc(infos, func(x, y peer.AddrInfo) int { return strings.Compare(string(x.ID), string(y.ID)) })
	b.mu.Lock()
	defer b.mu.Unlock()
	front := make([]bookPeer, 0, len(infos))
	for _, info := range infos {
		p := bookPeer{ID: info.ID}
		for _, a := range info.Addrs[:min(len(info.Addrs), MaxAddrs)] {
			p.Addrs = append(p.Addrs, a.String())
		}
		slices.Sort(p.Addrs)
		front = append(front, p)
	}
	for _, p := range b.data.Peers {
		if !slices.ContainsFunc(infos, func(info peer.AddrInfo) bool { return info.ID == p.ID }) {
			front = append(front, p)
		}
	}
	b.data.Peers = front[:min(len(front), maxRemembered)]
	return b.save()
}

// Forget drops all that is remembered of a peer: its addresses, names and pins. It reports whether there was anything.
func (b *Book) Forget(p peer.ID) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.data.Peers) + len(b.data.Names) + len(b.data.Pins)
	b.data.Peers = slices.DeleteFunc(b.data.Peers, func(q bookPeer) bool { return q.ID == p })
	for name, q := range b.data.Names {
		if q == p {
			delete(b.data.Names, name)
		}
	}
	for at, q := range b.data.Pins {
		if q == p {
			delete(b.data.Pins, at)
		}
	}
	if n == len(b.data.Peers)+len(b.data.Names)+len(b.data.Pins) {
		return false, nil
	}
	return true, b.save()
}
