package grpcstream

import (
	"slices"
	"sync"
	"testing"

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
	var mu sync.Mutex
	heard := map[peer.ID]*entry{}
	d.changed = func(id peer.ID, e *entry) {
		mu.Lock()
		defer mu.Unlock()
		heard[id] = e
	}
	const id = peer.ID("somebody")
	many := []protocol.ID{TunnelProtocol("test"), manyServices("test")}
	var names []string
	for range 64 {
		names = append(names, "x.A")
	}
	for i := range 3000 {
		d.update(id, many)
		var wg sync.WaitGroup
		wg.Go(func() { d.setCatalog(id, names) })
		if i%2 == 0 {
			d.set(id, nil)
		} else {
			d.amend(id, []protocol.ID{ServiceProtocol("test", "x.B")}, nil)
		}
		wg.Wait()
		switch e := d.lookup(id); {
		case heard[id] != e:
			t.Fatalf("round %d: the directory has %+v, and told last %+v", i, e, heard[id])
		case i%2 == 0 && e != nil:
			t.Fatalf("round %d: the peer has gone and is there: %+v", i, e)
		case i%2 == 1 && !slices.Contains(e.services, "x.B"):
			t.Fatalf("round %d: an announcement is lost: %+v", i, e)
		}
		d.set(id, nil)
	}
}
