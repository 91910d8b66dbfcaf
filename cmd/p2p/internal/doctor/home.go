package doctor

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host"
)

const nameKey = "key"

// Home looks at the folder of a node and the key in it. It changes nothing.
func Home(dir string) Check {
	key, err := host.ReadIdentity(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return unknown(nameKey, "there is no identity in %s yet", dir).todo("\"p2p run\" makes one at its first start")
	case err != nil:
		return fail(nameKey, "%v", err).todo("mend it as it says; if somebody else has read the key, make a new identity: move %s away, and change the allow lists that name the old one", dir)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return fail(nameKey, "%v", err)
	}
	return pass(nameKey, "%s is the key of %s, and nobody else can read it", filepath.Join(dir, "identity.key"), id)
}
