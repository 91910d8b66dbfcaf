package host

import (
	"context"
	"errors"
	"log/slog"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// AllowList says which peers may connect. A nil list allows everyone. It is safe for concurrent use.
type AllowList struct{}

// NewAllowList returns the list of ids and of those in file, which may be empty: one ID a line, # begins a comment.
func NewAllowList(file string, ids ...peer.ID) (*AllowList, error) {
	return nil, errors.New("host: not built yet")
}

// Allows tells whether p may connect.
func (l *AllowList) Allows(p peer.ID) bool { return l == nil }

// Run follows the file until ctx ends and closes h's connections to peers that are no longer allowed.
func (l *AllowList) Run(ctx context.Context, h corehost.Host, log *slog.Logger) error { return nil }
