package cli

import (
	"errors"
	"io/fs"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
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
		Long: `Show the ID of the identity in the home, which is made if there is none. The node need not
run: that is how to know the IDs for an allow list before the first start.

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
			key, err := a.identity(home)
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

// identity reads the key of a home, which a node may be using, or makes one and says so: the home may be a mistake.
func (a *app) identity(dir string) (crypto.PrivKey, error) {
	key, err := host.ReadIdentity(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := control.CheckHome(dir); err != nil { // no node could run with it
		return nil, err
	}
	home, err := host.OpenHome(dir)
	if _, ok := errors.AsType[*host.HomeInUseError](err); ok {
		return host.ReadIdentity(dir) // a node has started meanwhile
	}
	if err != nil {
		return nil, err
	}
	if key, err = home.Identity(); err == nil {
		a.note("made an identity in %s", dir)
	}
	return key, errors.Join(err, home.Close())
}
