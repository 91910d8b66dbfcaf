//go:build linux

package main

import (
	"testing"

	"github.com/lynn9388/p2p/internal/netns"
)

// TestRun_SecondNodeListsTheFirstWithLoopbackOnly is the same on a machine without any network.
func TestRun_SecondNodeListsTheFirstWithLoopbackOnly(t *testing.T) {
	foundHere(t, netns.New(t).Host().Command)
}
