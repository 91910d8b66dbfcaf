package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/adrg/xdg"
)

// homeVariable names the home when --home does not.
const homeVariable = "P2P_HOME"

// homeDir returns the home of this run as an absolute path.
func (a *app) homeDir() (string, error) {
	dir := a.home
	if dir == "" {
		dir = os.Getenv(homeVariable)
	}
	if dir == "" {
		dir = defaultHome()
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("home %q: %w", dir, err)
	}
	return abs, nil
}

// defaultHome is the home without --home and P2P_HOME.
func defaultHome() string { return filepath.Join(xdg.DataHome, "p2p") }
