package p2ptest_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/p2ptest"
)

func check(t *testing.T, from, to *p2p.Node) error {
	t.Helper()
	_, err := grpc_health_v1.NewHealthClient(from.Peer(to.ID().String())).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	return err
}

func TestVirtual_Starts(t *testing.T) {
	p2ptest.Virtual(t, func(t *testing.T, net *p2ptest.Net) {
		nodes := net.Start(5, nil)
		t.Log(net.Converge(10 * time.Second))
		for _, from := range nodes {
			for _, to := range nodes {
				if err := check(t, from, to); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
