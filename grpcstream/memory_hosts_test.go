package grpcstream

import (
	"testing"

	corehost "github.com/libp2p/go-libp2p/core/host"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
)

// memoryHosts are connected hosts without sockets, for use within a synctest bubble. They ignore the deadlines of
// streams. closeAll must run before the bubble ends.
func memoryHosts(tb testing.TB, n int) (hosts []corehost.Host, closeAll func()) {
	tb.Helper()
	mn := mocknet.New()
	for range n {
		h, err := mn.GenPeer()
		if err != nil {
			tb.Fatal(err)
		}
		hosts = append(hosts, h)
	}
	if err := mn.LinkAll(); err != nil {
		tb.Fatal(err)
	}
	if err := mn.ConnectAllButSelf(); err != nil {
		tb.Fatal(err)
	}
	return hosts, func() { _ = mn.Close() }
}
