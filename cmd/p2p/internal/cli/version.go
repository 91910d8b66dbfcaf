package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionJSON is what "p2p version -o json" prints.
type versionJSON struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// version is that of the module this command was built from, "(devel)" for a build without one.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

func (a *app) versionCommand() *cobra.Command {
	return a.readCommand(&cobra.Command{
		Use:   "version",
		Short: "Show the version of this command",
		Long: `Show the version of this command, of Go, and the platform it was built for.

JSON: {"version", "go", "platform"}`,
		Example: "  p2p version",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			out, err := a.printer()
			if err != nil {
				return err
			}
			v := versionJSON{Version: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			return out.Print(v, nil, [][]string{{"p2p " + v.Version + " " + v.Go + " " + v.Platform}})
		},
	})
}
