package host_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/internal/virtual"
)

// circuits returns how many streams of relayed connections a relay has.
func circuits(relay corehost.Host) (n int) {
	for _, c := range relay.Network().Conns() {
		for _, s := range c.GetStreams() {
			if strings.HasPrefix(string(s.Protocol()), "/libp2p/circuit/") {
				n++
			}
		}
	}
	return n
}

// Threat T29: what a relay carries for a peer that is taken off a list ends within a second, at both ends and on the relay,
// whether it is the list of the other end or that of the relay.
func TestAllowList_WhoIsTakenOffItIsCarriedNoLonger(t *testing.T) {
	for _, whose := range []string{"the callee's", "the relay's"} {
		t.Run(whose, func(t *testing.T) {
			virtual.Test(t, func(t *testing.T) {
				n := hosttest.New(t)
				defer func() { <-time.After(time.Minute) }() // libp2p's handlers outlast their hosts
				defer n.Close()
				n.SetLatencyAll(15 * time.Millisecond)
				a := n.Router(hosttest.PortRestricted).HostWith(host.Config{WAN: true})
				file := writeAllow(t, a.ID().String())
				list, err := host.NewAllowList(file)
				if err != nil {
					t.Fatal(err)
				}
				relayed, relaying := host.Config{WAN: true}, host.Config{Relay: &host.RelayConfig{}}
				if whose == "the callee's" {
					relayed.Allow = list
				} else {
					relaying.Allow = list
				}
				relay := n.Router(hosttest.Open).HostWith(relaying)
				relayed.Relays = []peer.ID{relay.ID()}
				b := n.Router(hosttest.PortRestricted).HostWith(relayed)
				others := relay.ID().String() + "\n" + b.ID().String() + "\n"
				if err := os.WriteFile(file, []byte(others+a.ID().String()), 0o600); err != nil {
					t.Fatal(err)
				}
				lister := map[bool]corehost.Host{true: b, false: relay}[relayed.Allow != nil]
				defer follow(t, list, lister, nil)()
				<-time.After(5 * time.Second)

				if _, err := client.Reserve(t.Context(), b, peer.AddrInfo{ID: relay.ID(), Addrs: relay.Addrs()}); err != nil {
					t.Fatal(err)
				}
				through := relay.Addrs()[0].Encapsulate(ma.StringCast("/p2p/" + relay.ID().String() + "/p2p-circuit"))
				if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{through}}); err != nil {
					t.Fatal(err)
				}
				if circuits(relay) == 0 || len(b.Network().ConnsToPeer(a.ID())) == 0 {
					t.Fatal("nothing is carried")
				}
				if err := os.WriteFile(file, []byte(others), 0o600); err != nil {
					t.Fatal(err)
				}
				poll.Until(t, time.Second, func() string {
					switch {
					case len(a.Network().ConnsToPeer(b.ID())) > 0:
						return "who was taken off the list is connected"
					case len(b.Network().ConnsToPeer(a.ID())) > 0:
						return "the other end is connected to who was taken off the list"
					case circuits(relay) > 0:
						return "the relay carries something"
					}
					return ""
				})
				if len(b.Network().ConnsToPeer(relay.ID())) == 0 {
					t.Error("the other end has lost the relay with it")
				}
				again, end := context.WithTimeout(t.Context(), 10*time.Second)
				defer end()
				if err := a.Connect(again, peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{through}}); err == nil {
					<-time.After(time.Second) // it may learn of the refusal afterwards
					if a.Network().Connectedness(b.ID()) != network.NotConnected {
						t.Error("connected again")
					}
				}
			})
		})
	}
}
