//go:build linux

package natlab

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLab_Delay(t *testing.T) {
	const delay = 15 * time.Millisecond
	t.Parallel()
	lab := New(t, Config{Delay: delay})
	a, b := open(t, lab.Router(PortRestricted).Host(), IPv4, 0), open(t, lab.Public(), IPv4, 0)
	best, worst := time.Hour, time.Duration(0)
	for range 50 {
		begin := time.Now()
		at := a.mapped(b)
		b.send("back", at)
		a.next()
		best, worst = min(best, time.Since(begin)), max(worst, time.Since(begin))
	}
	t.Logf("round trip from %v to %v", best, worst)
	// The worst is what the machine's other work makes of it.
	if best < 2*delay || best > 2*delay+5*time.Millisecond {
		t.Errorf("the best round trip is %v; want twice %v", best, delay)
	}
}

func TestLab_Loss(t *testing.T) {
	t.Parallel()
	lab := New(t, Config{Loss: 0.2})
	a, b := open(t, lab.Public(), IPv4, 0), open(t, lab.Public(), IPv4, 0)
	const sent = 2000
	got := 0
	for i := range sent {
		if i%100 == 99 { // the receiver's buffer is small
			end := fmt.Sprintf("end %d", i)
			for range 20 { // one of them gets there, after all that was sent before
				a.send(end, b.at)
			}
			for {
				text, _ := b.next()
				if text == end {
					break
				}
				if text == "x" {
					got++
				}
			}
		}
		a.send("x", b.at)
	}
	if got < sent*7/10 || got > sent*9/10 {
		t.Errorf("%d of %d arrived; want 80 %%", got, sent)
	}
}

// TestLab_Throughput sends through two NATs. What it logs is what a machine with nothing else to do would carry.
func TestLab_Throughput(t *testing.T) {
	const size = 64 << 20
	t.Parallel()
	lab := New(t, Config{Delay: 15 * time.Millisecond})
	server := lab.Router(FullCone).Host()
	public := lab.Public()
	at := mappedTCP(t, server, 9388, listen(t, public, 7001), netip.AddrPortFrom(public.IP("eth0"), 7001))
	ln := listen(t, server, 9388)
	client, err := dial(t, lab.Router(PortRestricted).Host(), 0, at, patience)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	begin := time.Now()
	go func() {
		_, _ = io.CopyN(client, zeros{}, size)
	}()
	if n, err := io.CopyN(io.Discard, conn, size); err != nil {
		t.Fatalf("after %d bytes: %v", n, err)
	}
	t.Logf("%.0f MB/s", size/1e6/time.Since(begin).Seconds())
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestLab_IPv6(t *testing.T) {
	t.Parallel()
	lab := New(t, Config{Family: IPv6})
	a, b := open(t, lab.Router(Firewall).Host(), IPv6, 9388), open(t, lab.Router(PortRestricted).Router(Firewall).Host(), IPv6, 9388)
	public := open(t, lab.Public(), IPv6, 7001)
	if got := a.mapped(public); got != a.at {
		t.Errorf("%v is seen as %v", a.at, got)
	}
	if got := b.mapped(public); got != b.at {
		t.Errorf("%v is seen as %v", b.at, got)
	}
	if a.gets(b, a.at, public, a.at) {
		t.Error("unsolicited packets get in")
	}
	a.send("lost or not", b.at) // b has sent something
	if text, from := b.next(); text != "lost or not" || from != a.at {
		t.Errorf("%q from %v", text, from)
	}
	if !a.gets(b, a.at, public, a.at) {
		t.Error("answers do not get in")
	}
}

func TestLab_Both(t *testing.T) {
	t.Parallel()
	lab := New(t, Config{Family: Both})
	host, public := lab.Router(Symmetric).Host(), lab.Public()
	for _, family := range []Family{IPv4, IPv6} {
		in, out := open(t, host, family, 0), open(t, public, family, 0)
		if translated := in.mapped(out) != in.at; translated != (family == IPv4) {
			t.Errorf("family %v: translated %v", family, translated)
		}
	}
}

func TestRouter_FlushMappings(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{FullCone, PortRestricted, Symmetric, Firewall} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			lab := New(t, Config{})
			site := lab.Router(kind)
			in, a, b := open(t, site.Host(), IPv4, 9388), open(t, lab.Public(), IPv4, 0), open(t, lab.Public(), IPv4, 0)
			old := in.mapped(a)
			site.FlushMappings()
			at := in.mapped(b)
			if in.gets(a, old, b, at) && kind != FullCone { // a full cone's new mapping is the same again
				t.Error("the mapping is still known")
			}
		})
	}
}

func TestRouter_Renumber(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{PortRestricted, Symmetric, DoubleNAT} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			lab := New(t, Config{})
			site := lab.Router(kind)
			in, out := open(t, site.Host(), IPv4, 9388), open(t, lab.Public(), IPv4, 0)
			old := in.mapped(out)
			now := site.Renumber()
			got := in.mapped(out)
			if kind != DoubleNAT && (got.Addr() != now || got.Addr() == old.Addr()) {
				t.Errorf("seen as %v, then as %v; want %v", old, got, now)
			}
			out.send("answer", got)
			if text, _ := in.next(); text != "answer" {
				t.Errorf("%q arrived", text)
			}
		})
	}
}

// TestRouter_RenumberUnderLoad has a socket send all the time: what goes out afterwards has the new address.
func TestRouter_RenumberUnderLoad(t *testing.T) {
	t.Parallel()
	lab := New(t, Config{})
	site := lab.Router(PortRestricted)
	in, out := open(t, site.Host(), IPv4, 9388), open(t, lab.Public(), IPv4, 0)
	in.mapped(out)
	stop := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = in.WriteToUDPAddrPort([]byte("flood"), out.at)
			}
		}
	})
	for range 5 {
		now := site.Renumber()
		begin := time.Now()
		for seen := false; !seen; {
			_, from := out.next()
			if seen = from.Addr() == now; !seen && time.Since(begin) > patience {
				t.Fatalf("packets still come from %v; want %v", from, now)
			}
		}
	}
	close(stop)
	sender.Wait()
}

func TestRouter_CutAndMend(t *testing.T) {
	t.Parallel()
	lab := New(t, Config{})
	site := lab.Router(DoubleNAT)
	in, out, other := open(t, site.Host(), IPv4, 9388), open(t, lab.Public(), IPv4, 0), open(t, lab.Public(), IPv4, 0)
	at := in.mapped(out)
	site.Cut()
	in.send("lost", out.at)
	other.send("marker", out.at)
	if text, _ := out.next(); text != "marker" {
		t.Errorf("%q got over a line that is cut", text)
	}
	out.send("lost", at)
	out.send("marker", other.at)
	if text, _ := other.next(); text != "marker" {
		t.Errorf("%q arrived", text)
	}
	site.Mend()
	out.send("back", at)
	if text, _ := in.next(); text != "back" {
		t.Errorf("%q arrived", text)
	}
}

func TestRouter_Sever(t *testing.T) {
	t.Parallel()
	lab := New(t, Config{})
	left, right := lab.Router(FullCone), lab.Router(None)
	a, b, c := open(t, left.Host(), IPv4, 9388), open(t, right.Host(), IPv4, 0), open(t, lab.Public(), IPv4, 0)
	at, in := a.mapped(b), a.mapped(c)
	left.Sever(right)
	if a.gets(b, at, c, in) {
		t.Error("a packet came over a way that is cut")
	}
	left.Join(right)
	if !a.gets(b, at, c, in) {
		t.Error("no packet comes after the way was mended")
	}
}

func TestRouter_UPnP(t *testing.T) {
	t.Parallel()
	lab := New(t, Config{})
	site := lab.Router(UPnP)
	host := site.Host()
	in, asks, out := open(t, host, IPv4, 9388), open(t, host, IPv4, 0), open(t, lab.Public(), IPv4, 0)
	// NAT-PMP (RFC 6886): map UDP port 9388 to port 9399, for an hour.
	request := []byte{0, 1, 0, 0}
	request = binary.BigEndian.AppendUint16(request, 9388)
	request = binary.BigEndian.AppendUint16(request, 9399)
	request = binary.BigEndian.AppendUint32(request, 3600)
	asks.send(string(request), netip.AddrPortFrom(site.Gateway().IP("br0"), 5351))
	answer, _ := asks.next()
	if len(answer) != 16 || answer[1] != 129 || answer[2] != 0 || answer[3] != 0 {
		t.Fatalf("the router answers % x", answer)
	}
	at := netip.AddrPortFrom(site.Addr(), binary.BigEndian.Uint16([]byte(answer[10:])))
	out.send("unasked", at)
	if text, from := in.next(); text != "unasked" || from != out.at {
		t.Errorf("%q from %v", text, from)
	}
}

func TestRouter_Proxy(t *testing.T) {
	t.Parallel()
	lab := New(t, Config{})
	site, public := lab.Router(ProxyOnly), lab.Public()
	host, ln := site.Host(), listen(t, public, 443)
	at := netip.AddrPortFrom(public.IP("eth0"), 443)
	if _, err := dial(t, host, 0, at, 300*time.Millisecond); !os.IsTimeout(err) {
		t.Errorf("without the proxy: %v; want a timeout", err)
	}
	connect := func(to netip.AddrPort) (conn net.Conn, status string) {
		proxy, err := netip.ParseAddrPort(strings.TrimPrefix(site.Proxy(), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if conn, err = dial(t, host, 0, proxy, patience); err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "CONNECT %v HTTP/1.1\r\nHost: %v\r\n\r\n", to, to)
		if status, err = bufio.NewReader(conn).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		return conn, status
	}
	if _, status := connect(netip.AddrPortFrom(at.Addr(), 9388)); !strings.Contains(status, " 403 ") {
		t.Errorf("to another port: %s", status)
	}
	client, status := connect(at)
	if !strings.Contains(status, " 200 ") {
		t.Fatalf("to port 443: %s", status)
	}
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	if got, _, _ := net.SplitHostPort(server.RemoteAddr().String()); got != site.Addr().String() {
		t.Errorf("the proxy comes from %s; want %v", got, site.Addr())
	}
	_, _ = io.WriteString(client, "ping")
	got := make([]byte, 4)
	if _, err := io.ReadFull(server, got); err != nil || string(got) != "ping" {
		t.Errorf("%q %v", got, err)
	}
}

func TestCapture(t *testing.T) {
	t.Parallel()
	lab := New(t, Config{})
	site, public := lab.Router(PortRestricted), lab.Public()
	host := site.Host()
	inside, outside, quiet := NewCapture(t, host, "eth0"), NewCapture(t, site.Gateway(), "wan"), NewCapture(t, public, "eth0")
	in, out := open(t, host, IPv4, 9388), open(t, public, IPv4, 7001)
	at := in.mapped(out)
	find := func(sent []Sent, to netip.AddrPort) (found []Sent) {
		for _, s := range sent {
			if s.To == to {
				found = append(found, s)
			}
		}
		return found
	}
	const size = 20 + 8 + 5 // IP, UDP, "hello"
	if got := find(inside.Stop(), out.at); len(got) != 1 || got[0].From != in.at || got[0].Proto != "udp" || got[0].Size != size {
		t.Errorf("left the host: %v", got)
	}
	if got := find(outside.Stop(), out.at); len(got) != 1 || got[0].From != at {
		t.Errorf("left the site: %v", got)
	}
	if got := find(quiet.Stop(), at); len(got) != 0 {
		t.Errorf("left the one that sent nothing: %v", got)
	}
}
