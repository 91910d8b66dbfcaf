package discovery

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
)

// On a busy machine identify may be faster than the notification of the connection that it ran on.
func TestKeeper_IdentifiedBeforeConnected(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		ah, bh := b.net.Host(), b.net.Host()
		k := NewKeeper(ah, KeeperConfig{Member: testMember, Logger: quiet()})
		must(t, ah.Connect(t.Context(), peer.AddrInfo{ID: bh.ID(), Addrs: simAddrs(bh)}))
		conn := ah.Network().ConnsToPeer(bh.ID())[0]
		k.heard(event.EvtPeerIdentificationCompleted{Peer: bh.ID(), Conn: conn, Protocols: []protocol.ID{testMember}})
		k.connected(conn)
		if p, _ := k.Peer(bh.ID()); p.State != Neighbor || !p.Outbound {
			t.Errorf("it is %+v", p)
		}
		_ = conn.Close()
		k.disconnected(conn)
		k.heard(event.EvtPeerIdentificationCompleted{Peer: bh.ID(), Conn: conn, Protocols: []protocol.ID{testMember}})
		if p, _ := k.Peer(bh.ID()); p.State != Known {
			t.Errorf("after the end it is %+v", p)
		}
		if ah.Network().Connectedness(bh.ID()) == network.Connected {
			t.Error("the connection is there")
		}
	})
}

// What the core asked for a moment ago takes no address away that has come since, at which somebody dials right now.
func TestKeeper_WhatIsDoneLateIsNotOutOfDate(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		k := NewKeeper(b.net.Host(), KeeperConfig{Logger: quiet()})
		at := []ma.Multiaddr{addrOf("/ip4/10.0.0.9/tcp/1")}
		k.input(func(c *core) {
			c.found("a", at, lanOrigin)
			c.dropAddrs("a", func(ma.Multiaddr) bool { return true })
		})
		late := k.core.out
		k.core.out = nil
		k.input(func(c *core) { c.found("a", at, lanOrigin) })
		k.aim("a", at)
		for _, a := range late {
			k.perform(b.ctx, &b.wg, a)
		}
		if got := k.h.Peerstore().Addrs("a"); len(got) != 1 {
			t.Errorf("the peerstore has %v", got)
		}
		k.input(func(c *core) { c.forget("a") })
		for _, a := range k.core.out {
			k.perform(b.ctx, &b.wg, a)
		}
		if got := k.h.Peerstore().Addrs("a"); len(got) != 1 {
			t.Errorf("the peerstore has %v of a peer that is being dialed", got)
		}
		k.aimedAt("a")
		if got := k.h.Peerstore().Addrs("a"); len(got) != 0 {
			t.Errorf("the peerstore has %v of a forgotten peer", got)
		}
	})
}

// One look at a connection at a time: a flood of addresses makes no flood of pings.
func TestKeeper_OneShortPingAtATime(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		ah, a := b.keeper(KeeperConfig{})
		bh, _ := b.keeper(KeeperConfig{})
		a.Found(peer.AddrInfo{ID: bh.ID(), Addrs: simAddrs(bh)}, lanOrigin)
		b.within(3*time.Second, has1(a))
		time.Sleep(20 * time.Second)
		conns := ah.Network().ConnsToPeer(bh.ID())
		b.net.Cut(ah, bh)
		before := runtime.NumGoroutine()
		for range 1000 {
			a.ping(b.ctx, &b.wg, conns, lookDoubt, checkTimeout)
			a.ping(b.ctx, &b.wg, conns, lookUsual, pingTimeout)
		}
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > 10 {
			t.Errorf("%d goroutines look at one connection", n)
		}
		b.within(2*checkTimeout, func() string {
			if len(a.Neighbors()) > 0 {
				return "the dead connection is there"
			}
			return ""
		})
	})
}
