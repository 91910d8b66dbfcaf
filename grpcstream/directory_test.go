package grpcstream

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// A catalog is read beside the events. Whichever comes last, who follows the directory must hear it last, and a peer
// that has gone must not come back by its catalog.
func TestDirectory_ACatalogReadBesideTheEvents(t *testing.T) {
	hosts, closeAll := memoryHosts(t, 1)
	defer closeAll()
	d, err := newDirectory(hosts[0], "test", nil, muted())
	if err != nil {
		t.Fatal(err)
	}
	defer d.sub.Close()
	const id = peer.ID("somebody")
	events := map[string]func(){
		"it goes":          func() { d.set(id, nil) },
		"it offers x.B":    func() { d.amend(id, []protocol.ID{ServiceProtocol("test", "x.B")}, nil) },
		"its catalog, too": func() { d.setCatalog(id, []string{"x.C"}) },
	}
	for name, event := range events {
		t.Run(name, func(t *testing.T) {
			d.changed = func(peer.ID, *entry) {}
			d.update(id, []protocol.ID{TunnelProtocol("test"), manyServices("test")})
			var heard []*entry
			var mu sync.Mutex
			var begun atomic.Bool
			var wg sync.WaitGroup
			d.changed = func(_ peer.ID, e *entry) {
				if begun.CompareAndSwap(false, true) { // the event comes while the catalog is being told of
					done := make(chan struct{})
					wg.Go(func() { defer close(done); event() })
					select {
					case <-done:
					case <-time.After(50 * time.Millisecond): // it waits for its turn
					}
				}
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, e)
			}
			d.setCatalog(id, []string{"x.A"})
			wg.Wait()
			e := d.lookup(id)
			if len(heard) != 2 || heard[1] != e {
				t.Errorf("the directory has %+v, and told %+v", e, heard)
			}
			if name == "it offers x.B" && !slices.Contains(e.services, "x.B") {
				t.Errorf("an announcement is lost: %+v", e)
			}
		})
	}
}
