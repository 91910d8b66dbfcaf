package host

import "io/fs"

// checkOwner accepts every file: a home lies in the user's profile, which others cannot enter.
func checkOwner(fs.FileInfo) error { return nil }

// looseMode accepts every file.
func looseMode(fs.FileInfo) fs.FileMode { return 0 }

// syncDir does nothing: the file system's journal has the name.
func syncDir(string) error { return nil }
