package reach_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/pace"
)

// possible tells whether theory allows two routers a direct connection: a symmetric one needs another that lets in who
// comes from a port that it does not know.
func possible(a, b hosttest.RouterKind) bool {
	open := func(k hosttest.RouterKind) bool {
		return k == hosttest.Open || k == hosttest.FullCone || k == hosttest.Restricted
	}
	return (a != hosttest.Symmetric || open(b)) && (b != hosttest.Symmetric || open(a))
}

func TestReach_EveryPairOfRouters(t *testing.T) {
	kinds := []hosttest.RouterKind{
		hosttest.Open, hosttest.Firewall, hosttest.FullCone, hosttest.Restricted, hosttest.PortRestricted, hosttest.Symmetric,
	}
	for _, relays := range []int{1, 2} {
		for _, ka := range kinds {
			for _, kb := range kinds {
				if relays == 2 && ka != hosttest.Symmetric && kb != hosttest.Symmetric && !pace.Long() {
					continue // a second relay tells of symmetric routers, and changes nothing else
				}
				t.Run(fmt.Sprintf("%s to %s over %d", ka, kb, relays), func(t *testing.T) {
					inWorld(t, relays, func(t *testing.T, w *world) {
						a, b := w.node(w.Router(ka)), w.node(w.Router(kb))
						w.reserved(a)
						w.reserved(b)
						w.call(a, b)
						if !possible(ka, kb) {
							time.Sleep(10 * time.Second)
							if direct(a, b) {
								t.Error("direct, against theory")
							}
							for _, why := range []string{a.WhyRelayed(b.ID()), b.WhyRelayed(a.ID())} {
								if !strings.Contains(why, "attempts failed: ") || relays > 1 && !strings.Contains(why, "symmetric") {
									t.Errorf("why it is relayed: %q", why)
								}
							}
							return
						}
						within := time.Second
						if ka == hosttest.Symmetric || kb == hosttest.Symmetric {
							within = 3 * time.Second
						}
						took := w.directly(a, b, within)
						t.Logf("direct after %v, %d attempts", took, len(a.Attempts(b.ID())))
					})
				})
			}
		}
	}
}
