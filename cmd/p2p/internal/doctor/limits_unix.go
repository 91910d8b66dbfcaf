//go:build unix

package doctor

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Machine returns the limits of this process, without connections.
func Machine() Limits {
	var l Limits
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) == nil {
		l.MaxFiles = int(min(uint64(files.Cur), 1<<31-1)) //nolint:unconvert // signed on some systems
	}
	for _, dir := range []string{"/proc/self/fd", "/dev/fd"} {
		if open, err := os.ReadDir(dir); err == nil {
			l.Files = len(open)
			break
		}
	}
	if text, err := os.ReadFile("/proc/sys/net/core/rmem_max"); err == nil { // Linux
		l.UDPBuffer, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	return l
}
