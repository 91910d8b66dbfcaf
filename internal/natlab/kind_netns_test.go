//go:build linux

package natlab

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// behavior is what a kind promises.
type behavior struct {
	kind        Kind
	translated  bool
	independent bool // the same mapping for every destination
	otherPort   bool // another port of an address that was sent something gets in
	otherAddr   bool // an address that was sent nothing gets in
	noUDP       bool
	noTCP       bool
}

func behaviors() []behavior {
	return []behavior{
		{kind: None, independent: true, otherPort: true, otherAddr: true},
		{kind: Firewall, independent: true},
		{kind: FullCone, translated: true, independent: true, otherPort: true, otherAddr: true},
		{kind: Restricted, translated: true, independent: true, otherPort: true},
		{kind: PortRestricted, translated: true, independent: true},
		{kind: Symmetric, translated: true},
		{kind: OneToOne, translated: true, independent: true, otherPort: true, otherAddr: true},
		{kind: UDPBlocked, translated: true, independent: true, noUDP: true},
		{kind: TCPBlocked, translated: true, independent: true, noTCP: true},
		{kind: DoubleNAT, translated: true, independent: true},
		{kind: UPnP, translated: true, independent: true},
	}
}

func TestKind_UDP(t *testing.T) {
	t.Parallel()
	for _, b := range behaviors() {
		if b.noUDP {
			continue
		}
		t.Run(b.kind.String(), func(t *testing.T) {
			t.Parallel()
			lab := New(t, Config{})
			site := lab.Router(b.kind)
			in := open(t, site.Host(), IPv4, 9388)
			one, two := lab.Public(), lab.Public()
			a, b2, c, stranger := open(t, one, IPv4, 7001), open(t, one, IPv4, 7002), open(t, two, IPv4, 7001), open(t, lab.Public(), IPv4, 7001)
			at := in.mapped(a)
			if (at.Addr() != in.at.Addr()) != b.translated {
				t.Errorf("%v is seen as %v; translated should be %v", in.at, at, b.translated)
			}
			if got := in.gets(b2, at, a, at); got != b.otherPort {
				t.Errorf("another port of an address that was sent something gets in: %v; want %v", got, b.otherPort)
			}
			if got := in.gets(stranger, at, a, at); got != b.otherAddr {
				t.Errorf("a stranger gets in: %v; want %v", got, b.otherAddr)
			}
			at2, at3 := in.mapped(b2), in.mapped(c)
			if got := at2 == at && at3 == at; got != b.independent {
				t.Errorf("seen as %v, %v by another port and %v by another address; independent should be %v", at, at2, at3, b.independent)
			}
			// What was dropped before has not taken the mapping's place: it holds for the stranger, too.
			if got := in.mapped(stranger); (got == at) != b.independent {
				t.Errorf("seen as %v, and as %v by the stranger", at, got)
			}
			if !in.gets(stranger, in.mapped(stranger), a, at) {
				t.Error("an answer does not get in")
			}
		})
	}
}

func TestKind_TCP(t *testing.T) {
	t.Parallel()
	for _, b := range behaviors() {
		if b.noTCP {
			continue
		}
		t.Run(b.kind.String(), func(t *testing.T) {
			t.Parallel()
			lab := New(t, Config{})
			inside := lab.Router(b.kind).Host()
			one, two, stranger := lab.Public(), lab.Public(), lab.Public()
			own := listen(t, inside, 9388)
			a, b2 := netip.AddrPortFrom(one.IP("eth0"), 7001), netip.AddrPortFrom(two.IP("eth0"), 7001)
			at := mappedTCP(t, inside, 9388, listen(t, one, 7001), a)
			at2 := mappedTCP(t, inside, 9388, listen(t, two, 7001), b2)
			if got := at == at2; got != b.independent {
				t.Errorf("seen as %v and %v; independent should be %v", at, at2, b.independent)
			}
			// within is how long a connection has that must come, and one that must not.
			within := map[bool]time.Duration{true: patience, false: 500 * time.Millisecond}
			_, err := dial(t, stranger, 0, at, within[b.otherAddr])
			if b.otherAddr {
				if err != nil {
					t.Fatalf("a stranger does not get in: %v", err)
				}
				conn, err := own.Accept()
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.Close()
				return
			}
			// Not refused: nobody answers.
			if !os.IsTimeout(err) {
				t.Errorf("a stranger's connection: %v; want a timeout", err)
			}
			// A port of the address that was sent something, and was not itself.
			if _, err := dial(t, one, 0, at, within[b.otherPort]); (err == nil) != b.otherPort {
				t.Errorf("another port's connection: %v; should get in: %v", err, b.otherPort)
			}
		})
	}
}

// TestKind_TCPFromBothSides dials from both sides at once. A SYN that comes too early is dropped, and sent again.
func TestKind_TCPFromBothSides(t *testing.T) {
	t.Parallel()
	lab := New(t, Config{Delay: 15 * time.Millisecond})
	public := lab.Public()
	server, at := listen(t, public, 7001), netip.AddrPortFrom(public.IP("eth0"), 7001)
	left, right := lab.Router(PortRestricted).Host(), lab.Router(DoubleNAT).Host()
	leftAt, rightAt := mappedTCP(t, left, 9388, server, at), mappedTCP(t, right, 9388, server, at)
	type result struct {
		conn net.Conn
		err  error
	}
	other := make(chan result, 1)
	go func() {
		conn, err := dial(t, right, 9388, leftAt, patience)
		other <- result{conn, err}
	}()
	begin := time.Now()
	conn, err := dial(t, left, 9388, rightAt, patience)
	if err != nil {
		t.Fatal(err)
	}
	if r := <-other; r.err != nil {
		t.Fatal(r.err)
	} else if got := r.conn.RemoteAddr().String(); got != leftAt.String() {
		t.Errorf("connected to %s; want %v", got, leftAt)
	}
	t.Logf("connected to %v after %v", conn.RemoteAddr(), time.Since(begin).Round(time.Millisecond))
}

func TestKind_Blocked(t *testing.T) {
	t.Parallel()
	lab := New(t, Config{})
	public := lab.Public()
	listen(t, public, 7001)
	at := netip.AddrPortFrom(public.IP("eth0"), 7001)
	if _, err := dial(t, lab.Router(TCPBlocked).Host(), 0, at, 300*time.Millisecond); !os.IsTimeout(err) {
		t.Errorf("TCP where that is blocked: %v; want a timeout", err)
	}
	in, out := open(t, lab.Router(UDPBlocked).Host(), IPv4, 0), open(t, public, IPv4, 7001)
	in.send("blocked", out.at)
	open(t, lab.Public(), IPv4, 0).send("marker", out.at)
	if text, _ := out.next(); text != "marker" {
		t.Errorf("%q got out where UDP is blocked", text)
	}
}

// TestKind_SamePort has two hosts behind one NAT that use the same port: the second is seen at another one, everywhere.
func TestKind_SamePort(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{FullCone, PortRestricted} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			lab := New(t, Config{})
			site := lab.Router(kind)
			first, second := open(t, site.Host(), IPv4, 9388), open(t, site.Host(), IPv4, 9388)
			a, b := open(t, lab.Public(), IPv4, 7001), open(t, lab.Public(), IPv4, 7001)
			want, got := first.mapped(a), second.mapped(a)
			if want.Port() != 9388 {
				t.Errorf("the first is seen as %v; want its own port", want)
			}
			if got == want {
				t.Errorf("both are seen as %v", got)
			}
			if got2 := second.mapped(b); got2 != got {
				t.Errorf("the second is seen as %v and %v", got, got2)
			}
			a.send("answer", got)
			if text, _ := second.next(); text != "answer" {
				t.Errorf("%q arrived", text)
			}
		})
	}
}

// TestKind_NoHairpin has two hosts behind one NAT: the outside address of one is no way for the other.
func TestKind_NoHairpin(t *testing.T) {
	t.Parallel()
	lab := New(t, Config{})
	site := lab.Router(FullCone)
	first, second := open(t, site.Host(), IPv4, 9388), open(t, site.Host(), IPv4, 9389)
	a := open(t, lab.Public(), IPv4, 7001)
	at := first.mapped(a)
	if first.gets(second, at, a, at) {
		t.Error("a packet to the own outside address came back")
	}
	if !first.gets(second, first.at, a, at) {
		t.Error("a packet on the LAN did not arrive")
	}
}
