package control

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shortDir returns a folder whose path leaves room for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "p2p") //nolint:usetesting // the path of t.TempDir may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func listen(t *testing.T, home string) net.Listener {
	t.Helper()
	l, err := Listen(home, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// greet accepts connections and writes to each, until l is closed.
func greet(t *testing.T, l net.Listener) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "in")
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
}

// heard returns what the other end of a connection says before it closes it.
func heard(t *testing.T, path string) (string, error) {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "unix", path)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestListen_ModesAndThisUser(t *testing.T) {
	home := shortDir(t)
	greet(t, listen(t, home))
	info, err := os.Stat(SocketPath(home))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %o", info.Mode().Perm())
	}
	if got, err := heard(t, SocketPath(home)); err != nil || got != "in" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestListen_ReplacesASocketLeftOver(t *testing.T) {
	home := shortDir(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: SocketPath(home), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as after kill -9
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), home); !errors.Is(err, ErrNoNode) {
		t.Errorf("got %v, want ErrNoNode", err)
	}
	greet(t, listen(t, home))
	if got, err := heard(t, SocketPath(home)); err != nil || got != "in" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestListen_RefusesAnOpenFolder(t *testing.T) {
	home := shortDir(t)
	if err := os.Chmod(home, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := Listen(home, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(SocketPath(home)); err == nil {
		t.Error("there is a socket all the same")
	}
}

func TestListen_RefusesALongPath(t *testing.T) {
	home := filepath.Join(shortDir(t), strings.Repeat("x", 120))
	if _, err := Listen(home, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "shorter --home") {
		t.Errorf("got %v", err)
	}
}

func TestDial_NoNode(t *testing.T) {
	home := shortDir(t)
	if _, err := Dial(t.Context(), home); !errors.Is(err, ErrNoNode) {
		t.Errorf("in an empty folder: %v", err)
	}
	if _, err := Dial(t.Context(), filepath.Join(home, "none")); !errors.Is(err, ErrNoNode) {
		t.Errorf("without a folder: %v", err)
	}
}
