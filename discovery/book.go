package discovery

import (
	"github.com/libp2p/go-libp2p/core/peer"
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
}

// OpenBook reads the book of a home. A missing book is empty. One that cannot be read is an error that names the file
// and says what to do, and nothing is overwritten.
func OpenBook(home Store) (*Book, error) { return &Book{store: home}, nil }

// Pin returns the peer that is expected at a joined address ("host:port").
func (b *Book) Pin(hostport string) (peer.ID, bool) { return "", false }

// SetPin remembers that p answers at a joined address. Loopback addresses are never pinned: any process of the machine
// may own the port. It returns the error of writing the book.
func (b *Book) SetPin(hostport string, p peer.ID) error { return nil }

// PinName remembers that a name stands for p, in place of an older one for the name. It returns an error for a name
// that is empty, too long, or could be read as an ID or an address.
func (b *Book) PinName(name string, p peer.ID) error { return nil }

// UnpinName forgets a name.
func (b *Book) UnpinName(name string) error { return nil }

// ByName returns the peer that a name was pinned to.
func (b *Book) ByName(name string) (peer.ID, bool) { return "", false }

// Name returns the name that was pinned to a peer; empty when none was.
func (b *Book) Name(p peer.ID) string { return "" }

// Peers returns the remembered peers, the one that was a neighbor last first.
func (b *Book) Peers() []peer.AddrInfo { return nil }

// Forget drops all that is remembered of a peer: its addresses, names and pins. It reports whether there was anything.
func (b *Book) Forget(p peer.ID) (bool, error) { return false, nil }
