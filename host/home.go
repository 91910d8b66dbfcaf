package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// Names in a home that are not for [Home.ReadFile] and [Home.WriteFile].
const (
	keyName    = "identity.key"
	lockName   = "lock"
	tempPrefix = ".tmp-"
)

// How long a process that is about to end, or that makes a key, may hold a home, and how often that is looked for.
const (
	lockWait = 500 * time.Millisecond
	lockLook = 20 * time.Millisecond
)

// Home is a node's folder: its key, what it remembers, and the lock that keeps a second process out. It is safe for
// concurrent use.
type Home struct {
	dir string

	mu   sync.Mutex
	lock *flock.Flock // nil once closed
}

// HomeInUseError tells that another process, or another Home of this one, holds a home.
type HomeInUseError struct{ Dir string }

// Error implements error.
func (e *HomeInUseError) Error() string {
	return fmt.Sprintf("host: home %s is in use by another node: stop that one, or give this one a home of its own", e.Dir)
}

// HomeError tells why a home cannot be used, and what to do.
type HomeError struct {
	Dir string
	Err error
}

// Error implements error.
func (e *HomeError) Error() string { return fmt.Sprintf("host: home %s: %v", e.Dir, e.Err) }

// Unwrap returns the cause.
func (e *HomeError) Unwrap() error { return e.Err }

// OpenHome takes the folder dir, which it creates, with missing parents, with mode 0700. A folder that belongs to
// somebody else or that others may enter is a [*HomeError], one that another process still holds after half a second, as
// one that is ending may, a [*HomeInUseError]. The caller closes the home; a process that dies gives it back. On Windows owners and modes are not checked.
func OpenHome(dir string) (*Home, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, &HomeError{dir, err}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &HomeError{dir, err}
	}
	if err := checkHome(dir); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(dir, lockName), flock.SetPermissions(0o600), flock.SetFlag(os.O_CREATE|os.O_RDWR))
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	ok, err := lock.TryLockContext(ctx, lockLook)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, &HomeError{dir, fmt.Errorf("lock it: %w", err)}
	}
	if !ok {
		return nil, &HomeInUseError{dir}
	}
	h := &Home{dir: dir, lock: lock}
	h.sweep()
	return h, nil
}

// checkHome tells whether dir is a folder of ours that nobody else may enter.
func checkHome(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return &HomeError{dir, err}
	}
	if !info.IsDir() {
		return &HomeError{dir, errors.New("not a folder: name another home")}
	}
	if err := checkOwner(info); err != nil {
		return &HomeError{dir, fmt.Errorf("%w: use a home of your own, or make it yours with chown", err)}
	}
	if mode := looseMode(info); mode != 0 {
		return &HomeError{dir, fmt.Errorf("others may enter it (mode %#o): run chmod 700 %s", mode, dir)}
	}
	return nil
}

// Dir returns the folder's absolute path.
func (h *Home) Dir() string { return h.dir }

// Close gives the home back. It may be called more than once.
func (h *Home) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lock == nil {
		return nil
	}
	err := h.lock.Unlock()
	h.lock = nil
	if err != nil {
		return &HomeError{h.dir, fmt.Errorf("unlock it: %w", err)}
	}
	return nil
}

// ReadFile returns the content of a file of the home; an error for a missing one matches [fs.ErrNotExist].
func (h *Home) ReadFile(name string) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.usable(name); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(h.dir, name))
}

// WriteFile replaces a file of the home. The file has mode 0600, and after a crash it is as before or as after, never
// in between.
func (h *Home) WriteFile(name string, data []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.usable(name); err != nil {
		return err
	}
	temp, err := writeTemp(h.dir, data)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(h.dir, name)); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return syncDir(h.dir)
}

// usable tells whether the home is open and name is a file in it that is not the home's own. The caller holds the lock.
func (h *Home) usable(name string) error {
	if h.lock == nil {
		return &HomeError{h.dir, os.ErrClosed}
	}
	if name != filepath.Base(name) || !filepath.IsLocal(name) || name == "." || name == keyName || name == lockName || strings.HasPrefix(name, tempPrefix) {
		return &HomeError{h.dir, fmt.Errorf("%q names no file that may be kept in it: %w", name, fs.ErrInvalid)}
	}
	return nil
}

// sweep removes what a crash left behind.
func (h *Home) sweep() {
	left, err := os.ReadDir(h.dir)
	if err != nil {
		return
	}
	for _, f := range left {
		if strings.HasPrefix(f.Name(), tempPrefix) {
			_ = os.Remove(filepath.Join(h.dir, f.Name()))
		}
	}
}

// writeTemp writes a new file in dir that is on the disk when it returns, and returns its path.
func writeTemp(dir string, data []byte) (path string, err error) {
	f, err := os.CreateTemp(dir, tempPrefix+"*") // mode 0600, exclusively
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return f.Name(), err
}
