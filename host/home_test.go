package host_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lynn9388/p2p/host"
)

func openHome(t *testing.T, dir string) *host.Home {
	t.Helper()
	h, err := host.OpenHome(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		out = append(out, e.Name())
	}
	return out
}

func TestOpenHome_CreatesParents(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	h := openHome(t, dir)
	if h.Dir() != dir {
		t.Errorf("Dir %s, want %s", h.Dir(), dir)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		t.Errorf("the folder: %v, %v", info, err)
	}
}

func TestOpenHome_OneAtATime(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "home")
	h := openHome(t, dir)
	_, err := host.OpenHome(dir)
	var used *host.HomeInUseError
	if !errors.As(err, &used) || used.Dir != dir || !strings.Contains(err.Error(), dir) {
		t.Errorf("second home: %v, want a HomeInUseError that names it", err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	openHome(t, dir)
}

func TestOpenHome_AtAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := host.OpenHome(file)
	if _, ok := errors.AsType[*host.HomeError](err); !ok {
		t.Errorf("error %v, want a HomeError", err)
	}
}

func TestHome_FilesAreReplacedWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	h := openHome(t, dir)
	if _, err := h.ReadFile("peers.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	for _, want := range []string{"first, the longer", "second", ""} {
		if err := h.WriteFile("peers.json", []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := h.ReadFile("peers.json"); err != nil || string(got) != want {
			t.Errorf("read %q, %v", got, err)
		}
	}
	if got := names(t, dir); len(got) != 2 { // the lock and the file
		t.Errorf("left in the home: %v", got)
	}
}

func TestHome_FilesAreReplacedWholeByMany(t *testing.T) {
	h := openHome(t, filepath.Join(t.TempDir(), "home"))
	if err := h.WriteFile("f", bytes.Repeat([]byte{'0'}, 4096)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := h.WriteFile("f", bytes.Repeat([]byte{byte('a' + i)}, 4096)); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			got, err := h.ReadFile("f")
			if err != nil || len(got) != 4096 || bytes.Count(got, got[:1]) != 4096 {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}

func TestHome_NamesStayInside(t *testing.T) {
	h := openHome(t, filepath.Join(t.TempDir(), "home"))
	if _, err := h.Identity(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "../f", "a/b", "/etc/passwd", "identity.key", "lock", ".tmp-1"} {
		if err := h.WriteFile(name, nil); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("WriteFile %q: %v", name, err)
		}
		if _, err := h.ReadFile(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("ReadFile %q: %v", name, err)
		}
	}
}

func TestHome_ClosedIsUnusable(t *testing.T) {
	h := openHome(t, filepath.Join(t.TempDir(), "home"))
	_ = h.Close()
	if err := h.WriteFile("f", nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("WriteFile: %v", err)
	}
	if _, err := h.ReadFile("f"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("ReadFile: %v", err)
	}
	if _, err := h.Identity(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Identity: %v", err)
	}
}

func TestHome_SweepsWhatACrashLeft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	_ = openHome(t, dir).Close()
	for _, name := range []string{".tmp-123", "kept"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openHome(t, dir)
	if got := strings.Join(names(t, dir), " "); got != "kept lock" {
		t.Errorf("in the home: %s", got)
	}
}
