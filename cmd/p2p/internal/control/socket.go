package control

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
)

// socketName is the socket's file in the home.
const socketName = "control.sock"

// maxSocketPath is the longest path that a Unix socket can have on every system that has them.
const maxSocketPath = 103

// SocketPath returns where the node of a home is reached.
func SocketPath(home string) string { return filepath.Join(home, socketName) }

// CheckHome returns an error when the path of a home is too long for a socket in it.
func CheckHome(home string) error {
	if p := SocketPath(home); len(p) > maxSocketPath {
		return fmt.Errorf("control: the path %s has %d bytes, and a socket's path at most %d: choose a shorter --home", p, len(p), maxSocketPath)
	}
	return nil
}

// Listen opens the socket of a home, which the caller has locked: a socket that is there is left over. Only this user
// and root can connect: the folder is 0700, the socket 0600, and the system says who connects where it can.
func Listen(home string, log *slog.Logger) (net.Listener, error) {
	if err := CheckHome(home); err != nil {
		return nil, err
	}
	if err := checkFolder(home); err != nil {
		return nil, err
	}
	path := SocketPath(home)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("control: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("control: %w", err), l.Close())
	}
	return &guard{UnixListener: l, log: log, uid: uint32(os.Geteuid())}, nil
}

func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return fmt.Errorf("control: %w", err)
	case runtime.GOOS == "windows":
		return nil
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("control: others can enter %s (mode %04o): run chmod 700 %s", dir, info.Mode().Perm(), dir)
	}
	return nil
}

// guard accepts connections of one user, and of root.
type guard struct {
	*net.UnixListener
	log *slog.Logger
	uid uint32
}

// Accept returns the next connection of a process that may connect.
func (g *guard) Accept() (net.Conn, error) {
	for {
		c, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if errors.Is(err, errors.ErrUnsupported) || err == nil && (uid == g.uid || uid == 0) {
			return c, nil
		}
		g.log.Warn("control: refused a process of another user", "uid", uid, "err", err)
		_ = c.Close()
	}
}
