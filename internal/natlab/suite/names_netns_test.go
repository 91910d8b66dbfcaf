//go:build linux

package suite

import (
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/natlab"
)

// TestNames has a node that knows a service's name and one public node call the service, which is known to another of
// five public nodes, and connect directly.
func TestNames(t *testing.T) {
	w := newWorld(t, natlab.Config{Delay: hop})
	var public []*node
	for range 5 {
		n := w.node(w.Public(), setup{Profile: "relay"})
		if len(public) > 0 {
			n.setup.Join = []string{public[len(public)-1].place()}
		}
		n.start()
		public = append(public, n)
	}
	serverSite, clientSite := w.Router(natlab.PortRestricted), w.Router(natlab.PortRestricted)
	server := w.wan(serverSite.Host(), public[0])
	server.start()
	if server.reservedAfter() == 0 {
		t.Fatal("no reservation")
	}
	time.Sleep(2 * time.Second) // it announces its service
	host := clientSite.Host()
	var direct times
	for range runs(t) {
		clientSite.FlushMappings()
		client := w.wan(host, public[4])
		client.setup.Service = ""
		client.setup.First, client.setup.ByName = serviceName, true
		client.start()
		first := order[Called](client, "First", struct{}{})
		l, ok := client.direct(server, patience)
		t.Logf("first answer after %v from the start, %s, %d calls failed before; direct after %v", first.At.Round(time.Millisecond), first.Path, first.Failed, l.Opened.Round(time.Millisecond))
		switch {
		case !ok:
			t.Error("not directly connected")
			client.show()
		case first.Failed > 0:
			t.Errorf("%d calls failed before the first that did not: %s", first.Failed, first.Why)
		default:
			direct = append(direct, l.Opened)
		}
		client.stop()
	}
	t.Logf("found by name and directly connected, %v", direct)
	for _, d := range direct {
		if d > promised(1500*time.Millisecond) {
			t.Errorf("directly connected after %v", d)
		}
	}
}

// TestNames_LANWithTable has two nodes on a LAN that take part in the table, and know nothing.
func TestNames_LANWithTable(t *testing.T) {
	w := newWorld(t, natlab.Config{})
	site := w.Router(natlab.PortRestricted)
	server := w.node(site.Host(), setup{Profile: "lan", Service: serviceName, DHT: true})
	client := w.node(site.Host(), setup{Profile: "lan", DHT: true, First: serviceName, ByName: true})
	server.start()
	client.start()
	first := order[Called](client, "First", struct{}{})
	t.Logf("first answer %v after the start of the process, %d calls failed before", first.At.Round(time.Millisecond), first.Failed)
	if first.Failed > 0 || first.Path != "direct" {
		t.Errorf("%+v", first)
	}
}

// TestCrowd has a hundred nodes behind one public address join through one relay.
func TestCrowd(t *testing.T) {
	const crowd = 100
	w := newWorld(t, natlab.Config{Delay: hop})
	relay := w.relay()
	n := w.wan(w.Router(natlab.PortRestricted).Host(), relay)
	n.setup.Crowd = crowd
	// All run on this machine, so they look for no further neighbors, which on a hundred machines would cost nothing here.
	n.setup.Mute, n.setup.Low, n.setup.High = true, 1, 1
	n.start()
	got := order[Gathering](n, "Gathered", time.Minute)
	t.Logf("%d nodes started within %v; reachable through the relay, %v; with a neighbor, %v; at the end %d are not", crowd,
		got.Started.Round(time.Millisecond), times(got.Reachable), times(got.Neighbors), got.Lost)
	if len(got.Reachable) != crowd || len(got.Neighbors) != crowd || got.Lost > 0 {
		t.Errorf("%d of %d nodes became reachable, %d have a neighbor; %d are not, or have none, at the end", len(got.Reachable), crowd, len(got.Neighbors), got.Lost)
	}
	for _, at := range append(got.Reachable, got.Neighbors...) {
		if at > promised(30*time.Second) {
			t.Errorf("one joined after %v", at)
		}
	}
}
