package grpcstream

import (
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/lynn9388/p2p/internal/safetext"
)

func TestProtocol_IDs(t *testing.T) {
	for _, c := range []struct{ got, want protocol.ID }{
		{TunnelProtocol(""), "/p2p/default/grpc/1.0.0"},
		{TunnelProtocol("lab"), "/p2p/lab/grpc/1.0.0"},
		{ServiceProtocol("lab", "a.B"), "/p2p/lab/svc/a.B"},
		{manyServices("lab"), "/p2p/lab/svc-many"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
}

func TestCheckNetwork(t *testing.T) {
	for name, ok := range map[string]bool{
		"default": true, "a": true, "a.b_c-9": true, strings.Repeat("x", 64): true,
		"": false, "A": false, "a/b": false, "a b": false, "ä": false, "a\x00": false, strings.Repeat("x", 65): false,
	} {
		if err := CheckNetwork(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestAnnouncedService(t *testing.T) {
	for pid, want := range map[protocol.ID]string{
		"/p2p/lab/svc/a.B":     "a.B",
		"/p2p/other/svc/a.B":   "",
		"/p2p/lab/svc/":        "",
		"/p2p/lab/svc/a/b":     "",
		"/p2p/lab/svc/a\x1b[m": "",
		"/p2p/lab/svc-many":    "",
		"/p2p/lab/grpc/1.0.0":  "",
		protocol.ID("/p2p/lab/svc/" + strings.Repeat("x", 201)): "",
	} {
		if got, ok := announcedService("lab", pid); got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v", pid, got, ok)
		}
	}
}

func FuzzAnnouncedService(f *testing.F) {
	for _, pid := range []string{"", "/p2p/lab/svc/a.B", "/p2p/lab/svc/", "/p2p/lab/svc/\xff", "/p2p/lab/svc/p2p.x"} {
		f.Add("lab", pid)
	}
	f.Fuzz(func(t *testing.T, network, pid string) {
		service, ok := announcedService(network, protocol.ID(pid))
		if !ok {
			return
		}
		if safetext.Clean(service) != service {
			t.Errorf("service %q is not safe to print", service)
		}
		if again := ServiceProtocol(network, service); again != protocol.ID(pid) {
			t.Errorf("%q became %q", pid, again)
		}
	})
}

func FuzzCheckNetwork(f *testing.F) {
	for _, name := range []string{"", "lab", "../x", "a b"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if CheckNetwork(name) == nil && strings.ContainsAny(name, "/ %\x00") {
			t.Errorf("network name %q was taken", name)
		}
	})
}

func TestIsSystemService(t *testing.T) {
	for name, want := range map[string]bool{
		"grpc.health.v1.Health": true, "grpc.reflection.v1.ServerReflection": true, "p2p.nodeinfo.v1.NodeInfoService": true,
		"hello.v1.Greeter": false, "p2px.X": false, "grpc.channelz.v1.Channelz": false, "": false,
	} {
		if got := IsSystemService(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}
