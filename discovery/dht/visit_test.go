package dht

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/poll"
)

// A node on a slow line is asked to the end, and stays in the table.
func TestVisit_LastsAsLongAsTheAnswerTakes(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		n, middle, provider := b.node(), b.node(), b.net.Host()
		slow := b.slowLiar(middle, []peer.AddrInfo{{ID: provider.ID(), Addrs: host.Addrs(provider)}}, 3*linger)
		time.Sleep(10 * time.Second) // until it is in the table of the one in the middle
		b.connect(n, middle)
		if got := b.find(n, service); len(got[provider.ID()].Addrs) == 0 {
			t.Errorf("found %v, want what the slow one says", got)
		}
		if n.dht.kad.RoutingTable().Find(slow.host.ID()) == "" {
			t.Error("the slow one was dropped from the table")
		}
		b.within(time.Minute, poll.Not("the connection is kept", func() bool { return !n.connected(slow) }))
	})
}

func (n *node) connected(to *node) bool {
	return n.host.Network().Connectedness(to.host.ID()) == network.Connected
}

// pair returns two nodes that have nothing to ask each other, since one has no table. They are not connected.
func (b *bubble) pair() (n, other *node) {
	b.t.Helper()
	n, other = b.node(), &node{host: b.net.Host()}
	synctest.Wait()
	return n, other
}

// visit dials other for the table.
func (b *bubble) visit(n, other *node) {
	b.t.Helper()
	n.host.Peerstore().AddAddrs(other.host.ID(), other.info().Addrs, peerstore.TempAddrTTL)
	if err := n.dht.connect(b.ctx, other.host.ID()); err != nil {
		b.t.Fatal(err)
	}
}

func TestVisit_AFailedDialDoesNotShortenTheNext(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		n, other := b.pair()
		if err := n.dht.connect(b.ctx, other.host.ID()); err == nil {
			t.Fatal("dialed without an address")
		}
		time.Sleep(linger * 9 / 10)
		b.visit(n, other)
		if time.Sleep(linger * 9 / 10); !n.connected(other) {
			t.Error("the connection was closed as if the failed dial had made it")
		}
		if time.Sleep(linger); n.connected(other) {
			t.Error("the connection is kept")
		}
	})
}

// A timer may fire in the moment in which it is set anew.
func TestVisit_DoesNotEndByATimerOfBefore(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		n, other := b.pair()
		b.visit(n, other)
		if n.dht.visits.end(other.host.ID()); !n.connected(other) {
			t.Error("a connection that was made just now was closed")
		}
	})
}

func TestVisit_ConnectionsOfOthersAreNotClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		n, other := b.pair()
		if err := n.dht.connect(b.ctx, other.host.ID()); err == nil {
			t.Fatal("dialed without an address")
		}
		b.connect(other, n)
		if time.Sleep(10 * linger); !n.connected(other) {
			t.Error("the connection that the other made was closed")
		}
	})
}

func TestVisit_WhatOthersUseIsNotClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		const used protocol.ID = "/used/1"
		n, other := b.pair()
		other.host.SetStreamHandler(used, func(s network.Stream) { _, _ = s.Read(make([]byte, 1)) })
		b.visit(n, other)
		s, err := n.host.NewStream(b.ctx, other.host.ID(), used)
		if err != nil {
			t.Fatal(err)
		}
		if time.Sleep(10 * linger); !n.connected(other) {
			t.Error("the connection was closed under a stream")
		}
		_ = s.Reset()
		if time.Sleep(2 * linger); n.connected(other) {
			t.Error("the connection is kept when nobody uses it any more")
		}
	})
}

func TestVisit_AReservationIsKept(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		relay := b.public(&host.RelayConfig{})
		other := &node{host: b.member(hosttest.Open, host.Config{})}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(b.ctx, linger/2)
		defer cancel()
		relay.host.Peerstore().AddAddrs(other.host.ID(), publicInfo(other).Addrs, peerstore.TempAddrTTL)
		if err := relay.dht.connect(ctx, other.host.ID()); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Reserve(ctx, other.host, publicInfo(relay)); err != nil {
			t.Fatal(err)
		}
		if time.Sleep(10 * linger); !relay.connected(other) {
			t.Error("the connection was closed, and the reservation with it")
		}
	})
}
