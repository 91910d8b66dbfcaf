//go:build !windows

package host_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lynn9388/p2p/host"
)

func TestHome_Modes(t *testing.T) {
	old := syscall.Umask(0) // the worst one
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "new", "home")
	h := openHome(t, dir)
	if _, err := h.Identity(); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteFile("peers.json", nil); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{
		dir: 0o700, filepath.Dir(dir): 0o700, filepath.Join(dir, keyFile): 0o600,
		filepath.Join(dir, "peers.json"): 0o600, filepath.Join(dir, "lock"): 0o600,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %#o, want %#o", path, got, want)
		}
	}
}

func TestOpenHome_OpenToOthers(t *testing.T) {
	for _, mode := range []fs.FileMode{0o750, 0o705, 0o711, 0o777, 0o720} {
		dir, _, _ := newKey(t)
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		_, err := host.OpenHome(dir)
		var bad *host.HomeError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), "chmod 700 "+dir) {
			t.Errorf("mode %#o: %v", mode, err)
		}
		if _, err := host.ReadIdentity(dir); !errors.As(err, &bad) {
			t.Errorf("mode %#o, ReadIdentity: %v", mode, err)
		}
	}
}

func TestIdentity_ReadableByOthers(t *testing.T) {
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o644, 0o666} {
		dir, _, data := newKey(t)
		path := filepath.Join(dir, keyFile)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := identity(dir)
		var bad *host.KeyError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %#o: %v", mode, err)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(after, data) {
			t.Errorf("mode %#o: the file was changed", mode)
		}
		if _, err := host.ReadIdentity(dir); !errors.As(err, &bad) {
			t.Errorf("mode %#o, ReadIdentity: %v", mode, err)
		}
	}
}

func TestHome_OfSomebodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir, _, data := newKey(t)
	path := filepath.Join(dir, keyFile)
	if err := os.Chown(path, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	_, err := identity(dir)
	var bad *host.KeyError
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "user 12345") || !strings.Contains(err.Error(), "chown") {
		t.Errorf("foreign key: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, data) {
		t.Error("the foreign key was changed")
	}
	if err := os.Chown(dir, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	var foreign *host.HomeError
	if _, err := host.OpenHome(dir); !errors.As(err, &foreign) || !strings.Contains(err.Error(), "user 12345") {
		t.Errorf("foreign home: %v", err)
	}
}

func TestHome_ReadOnlyFolder(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root writes everywhere; see TestHome_ReadOnlyDisk")
	}
	dir := filepath.Join(t.TempDir(), "home")
	_ = openHome(t, dir).Close()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Chmod(dir, 0o700) }()
	_, err := identity(dir)
	var bad *host.KeyError
	if !errors.As(err, &bad) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("error %v, want a KeyError for a missing permission", err)
	}
}
