package mdns

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/virtual"
)

func TestState_SaysWhyNobody(t *testing.T) {
	lo, eth := iface(1, "lo", "127.0.0.1/8"), iface(2, "eth0", "192.168.7.1/24")
	for name, c := range map[string]struct {
		ifaces []host.Interface
		change func(n *sim, lan *segment)
		want   Reason
		text   string
		log    string // of the one line that is logged
	}{
		"nothing at all":    {nil, nil, NoInterface, "connect a network", "INFO"},
		"only loopback":     {[]host.Interface{lo}, nil, NoInterface, "connect a network", "INFO"},
		"container bridge":  {[]host.Interface{lo, iface(3, "docker0", "172.17.0.1/16")}, nil, Container, "docker0", "INFO"},
		"nobody there":      {[]host.Interface{lo, eth}, nil, Silent, "nobody answers on eth0", "INFO"},
		"a firewall":        {[]host.Interface{lo, eth}, func(_ *sim, lan *segment) { lan.deaf = true }, NotLooped, "5353", "WARN"},
		"refused":           {[]host.Interface{lo, eth}, func(n *sim, _ *segment) { n.refuse = errors.New("bind: in use") }, Refused, "in use", "WARN"},
		"listens on one":    {[]host.Interface{lo, eth}, func(n *sim, _ *segment) { n.listen("/ip4/127.0.0.1/tcp/1") }, LocalOnly, "localhost", "INFO"},
		"listens elsewhere": {[]host.Interface{lo, eth}, func(n *sim, _ *segment) { n.listen("/ip4/127.0.0.1/tcp/1", "/ip4/10.99.0.1/tcp/1") }, NoAddress, "eth0", "WARN"},
		"does not listen":   {[]host.Interface{lo, eth}, func(n *sim, _ *segment) { n.listen() }, Silent, "eth0", "INFO"},
	} {
		t.Run(name, func(t *testing.T) {
			virtual.Test(t, func(t *testing.T) {
				lan := &segment{}
				n := newSim(t, lan, 1)
				n.segments["docker0"] = &segment{}
				n.ifaces = c.ifaces
				if c.change != nil {
					c.change(n, lan)
				}
				n.start(t, "")
				pass(time.Second)
				if st := n.source.State(); st.Reason != Starting {
					t.Errorf("after a second: %q", st.Reason)
				}
				pass(time.Minute)
				st := n.source.State()
				if st.Reason != c.want || !strings.Contains(st.Text, c.text) {
					t.Errorf("%q: %s; want %q and %q", st.Reason, st.Text, c.want, c.text)
				}
				if st.Reason != Starting && time.Since(st.Since) > time.Minute {
					t.Errorf("since %v", st.Since)
				}
				n.stop(t)
				if log := n.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "level="+c.log) {
					t.Errorf("logged:\n%swant one line at %s", log, c.log)
				}
			})
		})
	}
}

func TestState_Interfaces(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		lan := &segment{}
		a, b := newSim(t, lan, 1), newSim(t, lan, 2)
		a.start(t, "")
		b.start(t, "")
		pass(time.Minute)
		st := a.source.State()
		if len(st.Interfaces) != 2 || st.Reason != Found || st.Peers != 1 {
			t.Fatalf("%+v", st)
		}
		lo, eth := st.Interfaces[0], st.Interfaces[1]
		if lo.Name != "lo" || !lo.Loopback || !lo.Used || lo.Peers != 0 || !lo.Heard.IsZero() || !lo.Looped {
			t.Errorf("%+v", lo)
		}
		if eth.Name != "eth0" || eth.Loopback || !eth.Used || eth.Peers != 1 || eth.Heard.IsZero() || !eth.Looped || eth.Err != nil {
			t.Errorf("%+v", eth)
		}
	})
}

// TestState_ChangeOfAddress holds that nothing is complained of while addresses come and go one after the other.
func TestState_ChangeOfAddress(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		lan := &segment{}
		a, b := newSim(t, lan, 1), newSim(t, lan, 2)
		a.start(t, "")
		b.start(t, "")
		pass(time.Minute)
		lo := a.ifaces[0]
		a.set(lo, iface(2, "eth0"))
		pass(time.Second)
		a.set(lo, iface(2, "eth0", "192.168.7.9/24"))
		pass(time.Minute)
		a.set(lo)
		pass(settleTime + 2*tidyInterval)
		a.stop(t)
		b.stop(t)
		if log := a.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, string(NoInterface)) {
			t.Errorf("logged:\n%swant only that the interface is gone", log)
		}
	})
}

// TestRun_SocketRefusedForAWhile opens the port as soon as it is there to have.
func TestRun_SocketRefusedForAWhile(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		lan := &segment{}
		a, b := newSim(t, lan, 1), newSim(t, lan, 2)
		a.refuse = errors.New("in use")
		begin := time.Now()
		a.start(t, "")
		b.start(t, "")
		pass(time.Minute)
		a.mu.Lock()
		a.refuse = nil
		a.mu.Unlock()
		pass(reopenInterval + time.Second)
		if len(a.finds(b.host.id, begin)) == 0 || len(b.finds(a.host.id, begin)) == 0 {
			t.Error("not found after the port was free again")
		}
	})
}
