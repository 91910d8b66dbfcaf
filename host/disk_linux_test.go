package host_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/lynn9388/p2p/host"
)

// mountDisk returns a folder on a small disk of its own.
func mountDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skip("cannot mount a disk (only root can):", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestHome_FullDisk(t *testing.T) {
	disk := mountDisk(t)
	dir := filepath.Join(disk, "home")
	h := openHome(t, dir)
	if err := h.WriteFile("peers.json", []byte("before")); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	_ = f.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}

	_, err = h.Identity()
	var bad *host.KeyError
	if !errors.As(err, &bad) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Identity: %v, want a KeyError for the full disk", err)
	}
	if err := h.WriteFile("peers.json", []byte("after")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("WriteFile: %v", err)
	}
	if got, err := h.ReadFile("peers.json"); err != nil || string(got) != "before" {
		t.Errorf("the file is %q, %v", got, err)
	}
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("left in the home: %v", got)
	}
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Identity(); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

func TestHome_ReadOnlyDisk(t *testing.T) {
	disk := mountDisk(t)
	dir := filepath.Join(disk, "home")
	h := openHome(t, dir)
	key, err := h.Identity()
	if err != nil {
		t.Fatal(err)
	}
	_ = h.Close()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	var bad *host.HomeError
	if _, err := host.OpenHome(dir); !errors.As(err, &bad) || !errors.Is(err, syscall.EROFS) {
		t.Errorf("OpenHome: %v, want a HomeError for the read-only disk", err)
	}
	again, err := host.ReadIdentity(dir)
	if err != nil || !again.Equals(key) {
		t.Errorf("ReadIdentity: %v", err)
	}
}
