package host

import (
	"bytes"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	keyBlock  = "LIBP2P PRIVATE KEY"
	keyHeader = "Peer-ID"
	maxKey    = 64 << 10
)

// KeyError tells what is wrong with an identity file, and what to do about it. A missing file matches
// [fs.ErrNotExist].
type KeyError struct {
	Path string
	Err  error
}

// Error implements error.
func (e *KeyError) Error() string { return fmt.Sprintf("host: identity %s: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *KeyError) Unwrap() error { return e.Err }

// Identity reads the home's key, or creates an Ed25519 key when there is none. A key that is returned is on the disk
// and stays the home's: no file is ever written over. A file that is damaged, belongs to somebody else or is readable
// by others is a [*KeyError].
func (h *Home) Identity() (crypto.PrivKey, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lock == nil {
		return nil, &HomeError{h.dir, os.ErrClosed}
	}
	key, err := readKey(h.dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createKey(h.dir); err != nil {
		return nil, &KeyError{filepath.Join(h.dir, keyName), fmt.Errorf("create it: %w", err)}
	}
	return readKey(h.dir) // what is on the disk, not what should be
}

// ReadIdentity reads the key of the home at dir without taking the home: the node may be running.
func ReadIdentity(dir string) (crypto.PrivKey, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, &HomeError{dir, err}
	}
	if err := checkHome(dir); err != nil {
		return nil, err
	}
	return readKey(dir)
}

// createKey puts a new key into dir, in which there is none.
func createKey(dir string) error {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return err
	}
	data, err := encodeKey(key)
	if err != nil {
		return err
	}
	temp, err := writeTemp(dir, data)
	if err != nil {
		return err
	}
	err = linkExclusive(temp, filepath.Join(dir, keyName))
	_ = os.Remove(temp)
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// linkExclusive gives a file its name, unless that name exists. Where the file system has no hard links, the lock on
// the home has to do.
func linkExclusive(temp, name string) error {
	err := os.Link(temp, name)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, serr := os.Lstat(name); !errors.Is(serr, fs.ErrNotExist) {
		return errors.Join(err, serr)
	}
	return os.Rename(temp, name)
}

func encodeKey(key crypto.PrivKey) ([]byte, error) {
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Headers: map[string]string{keyHeader: id.String()}, Bytes: raw}), nil
}

// errDamaged is what every unreadable key is.
var errDamaged = errors.New("the file is damaged: restore it from a copy, or move it away to start with a new identity, " +
	"which other nodes will not know")

// decodeKey is the exact inverse of encodeKey: a file that differs in a single byte is damaged.
func decodeKey(data []byte) (crypto.PrivKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != keyBlock {
		return nil, fmt.Errorf("%w (no %q block)", errDamaged, keyBlock)
	}
	key, err := crypto.UnmarshalPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w (the key cannot be read)", errDamaged) // the cause might quote it
	}
	want, err := encodeKey(key)
	if err != nil || !bytes.Equal(data, want) {
		return nil, fmt.Errorf("%w (key and ID do not belong together, or something was added)", errDamaged)
	}
	if !signs(key) {
		return nil, fmt.Errorf("%w (the halves of the key do not belong together)", errDamaged)
	}
	return key, nil
}

// signs tells whether the public half of a key accepts what the private half has signed.
func signs(key crypto.PrivKey) bool {
	text := []byte("host: identity")
	signature, err := key.Sign(text)
	if err != nil {
		return false
	}
	ok, err := key.GetPublic().Verify(text, signature)
	return ok && err == nil
}

func readKey(dir string) (crypto.PrivKey, error) {
	path := filepath.Join(dir, keyName)
	// Never follow a link: the file's owner and mode are what is checked.
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &KeyError{path, fmt.Errorf("there is none yet: it is created when a node starts with this home: %w", fs.ErrNotExist)}
	case err != nil:
		return nil, &KeyError{path, err}
	case !info.Mode().IsRegular():
		return nil, &KeyError{path, errors.New("not a regular file: put the key itself there")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &KeyError{path, err}
	}
	defer f.Close()
	opened, err := f.Stat()
	if err != nil {
		return nil, &KeyError{path, err}
	}
	if !os.SameFile(info, opened) {
		return nil, &KeyError{path, errors.New("it was replaced while it was read: try again")}
	}
	if err := checkOwner(opened); err != nil {
		return nil, &KeyError{path, fmt.Errorf("%w: make it yours with chown if it is your key, or use another home", err)}
	}
	if mode := looseMode(opened); mode != 0 {
		return nil, &KeyError{path, fmt.Errorf("others may read it (mode %#o): run chmod 600 %s if nobody else has used this machine, "+
			"or move it away to start with a new identity", mode, path)}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return nil, &KeyError{path, err}
	}
	key, err := decodeKey(data)
	if err != nil {
		return nil, &KeyError{path, err}
	}
	return key, nil
}
