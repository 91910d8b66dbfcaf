package host

import (
	"errors"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// Home is a node's folder: its key, what it remembers, and the lock that keeps a second process out.
type Home struct{ dir string }

// HomeInUseError tells that another process holds a home.
type HomeInUseError struct{ Dir string }

func (e *HomeInUseError) Error() string { return "host: home " + e.Dir + " is in use" }

// KeyError tells what is wrong with an identity file and what to do about it.
type KeyError struct {
	Path string
	Err  error
}

func (e *KeyError) Error() string { return "host: identity " + e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *KeyError) Unwrap() error { return e.Err }

// OpenHome takes the folder dir, which it creates with mode 0700 if it is missing.
func OpenHome(dir string) (*Home, error) { return nil, errors.New("host: not built yet") }

// Dir returns the folder's path.
func (h *Home) Dir() string { return h.dir }

// Identity reads the key, or creates it when there is none.
func (h *Home) Identity() (crypto.PrivKey, error) { return nil, errors.New("host: not built yet") }

// ReadFile returns the content of a file of the home; a missing one matches fs.ErrNotExist.
func (h *Home) ReadFile(name string) ([]byte, error) { return nil, errors.New("host: not built yet") }

// WriteFile replaces a file of the home, atomically, with mode 0600.
func (h *Home) WriteFile(name string, data []byte) error { return errors.New("host: not built yet") }

// Close gives the home back. It may be called more than once.
func (h *Home) Close() error { return nil }

// ReadIdentity reads the key of the home at dir without taking its lock.
func ReadIdentity(dir string) (crypto.PrivKey, error) { return nil, errors.New("host: not built yet") }
