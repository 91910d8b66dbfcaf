package host

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/internal/safetext"
)

const (
	// allowInterval is how often [AllowList.Run] reads the file. A change counts when two readings in a row agree: an
	// editor that empties the file before it writes must not end every connection.
	allowInterval = 100 * time.Millisecond

	// allowRecheck is for how long after a change connections are looked at again: one may have passed the gate just
	// before.
	allowRecheck = 2 * time.Second

	maxAllowFile = 16 << 20
)

// AllowList says which peers may connect: those that were named to [NewAllowList] and those of its file. A nil list
// allows everyone; an empty one allows nobody. It is safe for concurrent use.
type AllowList struct {
	file  string
	named []peer.ID
	last  []byte // the file as it was when it was last read; Run's alone after the start
	now   atomic.Pointer[map[peer.ID]struct{}]
}

// NewAllowList returns the list of ids and of the peers in file, which may be empty for none. A line of the file is a
// peer ID and, after a space, a comment; empty lines and those that begin with # are skipped. A file that cannot be
// read, or a line that is not of this form, is an error that names both.
func NewAllowList(file string, ids ...peer.ID) (*AllowList, error) {
	l := &AllowList{file: file, named: slices.Clone(ids)}
	if file == "" {
		l.set(nil)
		return l, nil
	}
	data, err := readAllowFile(file)
	if err != nil {
		return nil, fmt.Errorf("host: allow list: %w", err)
	}
	read, err := parseAllowFile(file, data)
	if err != nil {
		return nil, fmt.Errorf("host: allow list: %w", err)
	}
	l.last = data
	l.set(read)
	return l, nil
}

// Allows tells whether p may connect.
func (l *AllowList) Allows(p peer.ID) bool {
	if l == nil {
		return true
	}
	_, ok := (*l.now.Load())[p]
	return ok
}

func (l *AllowList) set(read []peer.ID) {
	m := make(map[peer.ID]struct{}, len(l.named)+len(read))
	for _, ids := range [][]peer.ID{l.named, read} {
		for _, id := range ids {
			m[id] = struct{}{}
		}
	}
	l.now.Store(&m)
}

// Run follows the file until ctx ends, which is no error: within 300 ms of a change the new list holds, and h's
// connections to peers that are no longer on it are closed, with everything on them. Those of [Config.Relays] need not be
// on it: their connections are closed once when they are taken off it, and come back. While the file cannot be read or has
// a malformed line, the last good list holds, and log is told once. Run is called at most once for a list.
func (l *AllowList) Run(ctx context.Context, h corehost.Host, log *slog.Logger) error {
	if l == nil || l.file == "" {
		<-ctx.Done()
		return nil
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := follower{list: l, host: h, log: log, seen: l.last}
	if n, ok := h.(*node); ok {
		f.carriers = n.gate.relays
	}
	tick := time.NewTicker(allowInterval)
	defer tick.Stop()
	for {
		f.look()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// follower is what Run knows from one reading to the next.
type follower struct {
	list    *AllowList
	host    corehost.Host
	log     *slog.Logger
	seen    []byte // the last reading
	warned  string
	changed time.Time

	carriers []peer.ID // may be connected, listed or not
}

func (f *follower) look() {
	data, err := readAllowFile(f.list.file)
	switch {
	case err != nil:
		f.warn(err)
	case !bytes.Equal(data, f.seen):
		f.seen = data // wait for a second reading
	case !bytes.Equal(data, f.list.last):
		read, err := parseAllowFile(f.list.file, data)
		if err != nil {
			f.warn(err)
			break
		}
		f.list.last, f.warned, f.changed = data, "", time.Now()
		before := *f.list.now.Load()
		f.list.set(read)
		f.revoke(before)
		f.log.Info("the allow list has changed", "file", f.list.file, "peers", len(*f.list.now.Load()))
	default:
		f.warned = ""
	}
	if !f.changed.IsZero() && time.Since(f.changed) < allowRecheck {
		f.letGo()
	}
}

// warn reports a fault of the file once, until it is another or mended.
func (f *follower) warn(err error) {
	if f.warned == err.Error() {
		return
	}
	f.warned = err.Error()
	f.log.Warn("the allow list cannot be used, the previous one holds", "file", f.list.file, "err", err)
}

// letGo closes the connections to peers that are not on the list, and need to be.
func (f *follower) letGo() {
	for _, p := range f.host.Network().Peers() {
		if !f.list.Allows(p) && !slices.Contains(f.carriers, p) {
			f.disconnect(p)
		}
	}
}

// revoke ends what carriers that were on the list before have begun. They may connect again, as any that is not listed.
func (f *follower) revoke(before map[peer.ID]struct{}) {
	for _, p := range f.carriers {
		if _, was := before[p]; was && !f.list.Allows(p) {
			f.disconnect(p)
		}
	}
}

func (f *follower) disconnect(p peer.ID) {
	f.log.Info("disconnected a peer that is no longer on the allow list", "peer", p)
	if err := f.host.Network().ClosePeer(p); err != nil {
		f.log.Debug("close a connection", "peer", p, "err", err)
	}
}

func readAllowFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxAllowFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxAllowFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", file, maxAllowFile)
	}
	return data, nil
}

func parseAllowFile(file string, data []byte) ([]peer.ID, error) {
	var out []peer.ID
	lines := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff"))))
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		id, err := peer.Decode(fields[0])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %q is not a peer ID: write one ID a line, then a space and a comment", file, n, safetext.Clean(fields[0]))
		}
		out = append(out, id)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return out, nil
}
