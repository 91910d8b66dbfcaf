package host_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host"
)

const keyFile = "identity.key"

// newKey makes a home with a key and returns its folder, the key's ID and the file's content.
func newKey(t *testing.T) (dir string, id peer.ID, data []byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "home")
	h := openHome(t, dir)
	key, err := h.Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if id, err = peer.IDFromPrivateKey(key); err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(filepath.Join(dir, keyFile)); err != nil {
		t.Fatal(err)
	}
	return dir, id, data
}

// identity reads or creates the key of a home.
func identity(dir string) (peer.ID, error) {
	h, err := host.OpenHome(dir)
	if err != nil {
		return "", err
	}
	defer h.Close()
	key, err := h.Identity()
	if err != nil {
		return "", err
	}
	return peer.IDFromPrivateKey(key)
}

func TestIdentity_IsKept(t *testing.T) {
	dir, want, before := newKey(t)
	for range 3 {
		if got, err := identity(dir); err != nil || got != want {
			t.Fatalf("%s, %v, want %s", got, err, want)
		}
	}
	after, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed: %v", err)
	}
	if !strings.Contains(string(after), want.String()) {
		t.Error("the file does not name its ID")
	}
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("left in the home: %v", got)
	}
}

func TestReadIdentity_WhileTheNodeRuns(t *testing.T) {
	dir, want, _ := newKey(t)
	openHome(t, dir) // holds the lock
	key, err := host.ReadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !want.MatchesPrivateKey(key) {
		t.Error("another key")
	}
}

func TestReadIdentity_CreatesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	if _, err := host.ReadIdentity(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no home: %v", err)
	}
	_ = openHome(t, dir).Close()
	if _, err := host.ReadIdentity(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no key: %v", err)
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("in the home: %v", got)
	}
}

// isKept fails the test unless the damaged key is refused with a hint and left as it is.
func isKept(t *testing.T, dir, what string, data []byte) {
	t.Helper()
	path := filepath.Join(dir, keyFile)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	id, err := identity(dir)
	var bad *host.KeyError
	if !errors.As(err, &bad) || bad.Path != path {
		t.Fatalf("%s: %s, %v, want a KeyError that names %s", what, id, err, path)
	}
	if !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("%s: the error says not what to do: %v", what, err)
	}
	if after, rerr := os.ReadFile(path); rerr != nil || !bytes.Equal(after, data) {
		t.Errorf("%s: the file was changed: %v", what, rerr)
	}
}

func TestIdentity_TruncatedAtEveryByte(t *testing.T) {
	dir, _, data := newKey(t)
	for n := range len(data) {
		isKept(t, dir, "truncated", data[:n])
	}
}

func TestIdentity_DamagedAtEveryByte(t *testing.T) {
	dir, _, data := newKey(t)
	for n := range len(data) {
		for bit := range 8 {
			bad := bytes.Clone(data)
			bad[n] ^= 1 << bit
			if _, err := host.DecodeKey(bad); err == nil {
				t.Errorf("bit %d of byte %d flipped: the key was taken", bit, n)
			}
		}
	}
	bad := bytes.Clone(data)
	bad[len(bad)/2] ^= 1
	isKept(t, dir, "a bit flipped", bad)
}

func TestIdentity_WithSomethingElseInTheFile(t *testing.T) {
	dir, _, data := newKey(t)
	_, _, other := newKey(t)
	isKept(t, dir, "appended", append(bytes.Clone(data), '\n'))
	isKept(t, dir, "two keys", append(bytes.Clone(data), other...))
	isKept(t, dir, "zeros", make([]byte, len(data)))
	isKept(t, dir, "large", bytes.Repeat(data, 1000))
	// The ID of one key and the bytes of another.
	lines, others := strings.SplitAfter(string(data), "\n"), strings.SplitAfter(string(other), "\n")
	lines[1] = others[1]
	isKept(t, dir, "mixed", []byte(strings.Join(lines, "")))
}

func TestIdentity_ErrorsKeepTheKeySecret(t *testing.T) {
	dir, _, data := newKey(t)
	path := filepath.Join(dir, keyFile)
	if err := os.WriteFile(path, data[:len(data)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := identity(dir)
	secret := strings.Split(string(data), "\n")[3]
	if err == nil || strings.Contains(err.Error(), secret[:8]) {
		t.Errorf("error %v", err)
	}
}

func TestIdentity_NotAFile(t *testing.T) {
	dir, _, data := newKey(t)
	path := filepath.Join(dir, keyFile)
	elsewhere := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(elsewhere, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, path); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	var bad *host.KeyError
	if _, err := identity(dir); !errors.As(err, &bad) {
		t.Errorf("a link: %v", err)
	}
	_ = os.Remove(path)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := identity(dir); !errors.As(err, &bad) {
		t.Errorf("a folder: %v", err)
	}
}

func FuzzIdentity(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("-----BEGIN LIBP2P PRIVATE KEY-----\nPeer-ID: x\n\nAAAA\n-----END LIBP2P PRIVATE KEY-----\n"))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := host.DecodeKey(data)
		if err != nil {
			return
		}
		again, err := host.EncodeKey(key)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q was read as another file's key: %q, %v", data, again, err)
		}
	})
}
