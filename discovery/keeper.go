package discovery

import (
	"context"
	"iter"
	"log/slog"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
)

// The marks of a keeper that was told none.
const (
	DefaultLow  = 15
	DefaultHigh = 20
)

// KeeperConfig says how a [Keeper] works. The zero value of each field is usable.
type KeeperConfig struct {
	// Low and High are the marks: below Low candidates are dialed, and peers that come by themselves are taken as
	// neighbors up to High. 0 stands for 15 and 20; High is raised to Low.
	Low, High int
	// Member is the protocol that the peers of this network speak. A peer that does not is no neighbor, its records
	// are not kept, and it is let go. Empty: every peer is a member.
	Member protocol.ID
	// Allow says who may be a neighbor; nil allows all. It is asked again every second for the neighbors. It must
	// not block.
	Allow func(peer.ID) bool
	// InUse says which peers have live calls; their connections are never closed to make room. nil: none. It must
	// not block.
	InUse func(peer.ID) bool
	// Book remembers peers over restarts; nil remembers nothing.
	Book *Book
	// DialRate is the budget of dials per second that the keeper starts by itself, with bursts of twice as many;
	// 0 stands for 10.
	DialRate float64
	// Logger is told of neighbors that come and go (Info), of what a person should mend (Warn) and of the rest
	// (Debug); nil stands for slog.Default().
	Logger *slog.Logger
}

// Keeper keeps a node's neighbors. Its methods may be called concurrently, before, while and after Run.
type Keeper struct {
	h   corehost.Host
	cfg KeeperConfig
}

// NewKeeper returns a keeper of h's neighbors. It does nothing until Run. One host has one keeper.
func NewKeeper(h corehost.Host, cfg KeeperConfig) *Keeper {
	return &Keeper{h: h, cfg: cfg}
}

// Run keeps the neighbors until ctx ends, and returns nil then. It leaves the connections open: they end with the
// host. It may be called once.
func (k *Keeper) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Follow runs a source and hands what it finds to the keeper, until ctx ends; then it returns nil. A source that fails
// is run again after a while: 1 s at first, 30 s at most.
func (k *Keeper) Follow(ctx context.Context, s Source) error {
	o := OriginOf(s)
	return s.Run(ctx, k.h, func(info peer.AddrInfo) { k.Found(info, o) })
}

// Found tells the keeper of a peer. Addresses that the origin has no right to name are dropped, and so is a peer of
// which none is left. Found does not block.
func (k *Keeper) Found(info peer.AddrInfo, from Origin) {}

// FoundRecords tells the keeper of peers by their signed records, as [Keeper.Records] of another node returned them.
// Records that are malformed, too large, too old, from the future, signed by somebody else or older than what is known
// are dropped, and so is what is over the limit in number. It returns how many were accepted.
func (k *Keeper) FoundRecords(envelopes [][]byte, from Origin) int { return 0 }

// Connect connects to a peer at once, at info's addresses or at the known ones, and keeps it as a neighbor until
// [Keeper.Disconnect]: it is redialed for ever and never closed to make room. Explicit addresses may have any scope.
// The error says what was tried.
func (k *Keeper) Connect(ctx context.Context, info peer.AddrInfo) error { return nil }

// Disconnect closes the connections to a peer, whatever they are used for, and does not dial it again until it is
// named by Connect or it connects by itself.
func (k *Keeper) Disconnect(p peer.ID) error { return nil }

// Forget is Disconnect, and drops all that is known and remembered of the peer.
func (k *Keeper) Forget(p peer.ID) error { return nil }

// Cloned tells the keeper that another host proved this node's own identity at an address. It does not block; it is
// what host.Config's Clone calls.
func (k *Keeper) Cloned(at ma.Multiaddr) {}

// Peers returns every known peer, ordered by ID.
func (k *Keeper) Peers() []Peer { return nil }

// Peer returns what is known of one peer.
func (k *Keeper) Peer(p peer.ID) (Peer, bool) { return Peer{}, false }

// Neighbors returns the neighbors, ordered by ID.
func (k *Keeper) Neighbors() []peer.ID { return nil }

// Events returns what happens from the call on, until ctx ends or the keeper has ended. The sequence may be ranged over
// once. A reader that is more than 1,024 events behind misses the oldest ones: nobody waits for it. For the state at
// the start of the events call Peers after Events.
func (k *Keeper) Events(ctx context.Context) iter.Seq[Event] { return func(func(Event) bool) {} }

// Records returns signed peer records of at most max connected members, chosen at random, for a peer that is
// connected over a link of scope to: records with no address of use there are left out, as is except. They are what
// identify brought, and at most [MaxRecordAge] old.
func (k *Keeper) Records(max int, except peer.ID, to Scope) [][]byte { return nil }

// Limits on what others tell of peers.
const (
	// MaxRecords is the most signed records that one answer may carry.
	MaxRecords = 64
	// MaxRecordSize is the most bytes of a signed record.
	MaxRecordSize = 4 << 10
	// MaxRecordAge is the greatest age of a signed record.
	MaxRecordAge = 30 * 24 * time.Hour
	// MaxAddrs is the most addresses that are kept of a peer.
	MaxAddrs = 16
	// MaxPeers is the most peers that are known at once.
	MaxPeers = 1000
)
