package cli

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/lynn9388/p2p/host"
)

// idJSON is what "p2p id -o json" prints.
type idJSON struct {
	ID string `json:"id"`
}

func (a *app) idCommand() *cobra.Command {
	return a.readCommand(&cobra.Command{
		Use:   "id",
		Short: "Show the node's ID",
		Long: `Show the ID of the identity in the home. The node need not run. An identity is made by
the first "p2p run"; this command makes none.

JSON: {"id"}`,
		Example: `  p2p id
  p2p id --home /srv/p2p -o json`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			out, err := a.printer()
			if err != nil {
				return err
			}
			home, err := a.homeDir()
			if err != nil {
				return err
			}
			key, err := host.ReadIdentity(home)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("there is no identity in %s yet: \"p2p run\" makes one at its first start", home)
			}
			if err != nil {
				return err
			}
			id, err := peer.IDFromPrivateKey(key)
			if err != nil {
				return err
			}
			return out.Print(idJSON{ID: id.String()}, nil, [][]string{{id.String()}})
		},
	})
}
