package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// inNamespace calls f on a thread of its own, which is never used again.
func inNamespace(name string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Without UnlockOSThread the thread ends with this goroutine, and no other goroutine can get into the host.
		runtime.LockOSThread()
		done <- func() error {
			ns, err := os.Open(filepath.Join(namesDir, name))
			if err != nil {
				return fmt.Errorf("netns: %w", err)
			}
			defer func() { _ = ns.Close() }()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("netns: enter %s: %w", name, err)
			}
			return f()
		}()
	}()
	return <-done
}
