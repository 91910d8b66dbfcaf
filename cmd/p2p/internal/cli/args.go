package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// exactly takes the arguments named, no fewer and no more. A name in brackets may be left out.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return usagef("unexpected argument %q", args[len(names)])
		}
		for _, n := range names[len(args):] {
			if !strings.HasPrefix(n, "[") {
				return usagef("%s is missing", n)
			}
		}
		return nil
	}
}
