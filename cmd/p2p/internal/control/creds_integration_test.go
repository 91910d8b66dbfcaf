//go:build linux

package control

import (
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
)

// nobody is a user that is neither root nor the one of the test.
const nobody = 65534

// asUser runs do on a thread of another user. The thread ends with it.
func asUser(t *testing.T, uid int, do func()) {
	t.Helper()
	done := make(chan syscall.Errno)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime throws the thread away
		// The raw call changes this thread only; the package's function would change the whole process.
		_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0))
		if errno == 0 {
			do()
		}
		done <- errno
	}()
	if errno := <-done; errno != 0 {
		t.Fatalf("become user %d: %v", uid, errno)
	}
}

// TestGuard_RefusesAnotherUser opens the modes wide, so that only the credentials of the process keep it out.
func TestGuard_RefusesAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	home := shortDir(t)
	greet(t, listen(t, home))
	for path, mode := range map[string]os.FileMode{home: 0o755, SocketPath(home): 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	asUser(t, nobody, func() {
		if got, err := heard(t, SocketPath(home)); err == nil && got != "" {
			t.Errorf("another user got %q", got)
		} else if _, isDial := err.(*net.OpError); isDial && err.(*net.OpError).Op == "dial" { //nolint:errorlint,forcetypeassert // the outermost error tells
			t.Errorf("the connection failed before the check: %v", err)
		}
	})
	if got, err := heard(t, SocketPath(home)); err != nil || got != "in" {
		t.Errorf("this user got %q, %v", got, err)
	}
}

// TestListen_ModesKeepAnotherUserOut leaves the modes as they are.
func TestListen_ModesKeepAnotherUserOut(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	home := shortDir(t)
	l := listen(t, home)
	if g, ok := l.(*guard); ok {
		g.uid = nobody // the credentials would let it in
	}
	greet(t, l)
	asUser(t, nobody, func() {
		if got, err := heard(t, SocketPath(home)); err == nil {
			t.Errorf("another user got %q", got)
		}
	})
}
