//go:build !windows

package host

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkOwner tells whether a file belongs to the user this process runs as.
func checkOwner(info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if uid := os.Geteuid(); int64(st.Uid) != int64(uid) {
		return fmt.Errorf("it belongs to user %d, and this process runs as user %d", st.Uid, uid)
	}
	return nil
}

// looseMode returns the mode of a file that others than its owner may use, and 0 otherwise.
func looseMode(info fs.FileInfo) fs.FileMode {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return mode
	}
	return 0
}

// syncDir makes new names in a folder last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
