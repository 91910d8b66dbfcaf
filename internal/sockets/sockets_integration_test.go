//go:build linux

package sockets

import (
	"net"
	"slices"
	"testing"
)

func TestOwn_ListsWhatOthersReach(t *testing.T) {
	tcp4, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp4.Close()
	udp4, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp4.Close()
	want := []string{"tcp " + tcp4.Addr().String(), "udp " + udp4.LocalAddr().String()}
	if tcp6, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		defer tcp6.Close()
		want = append(want, "tcp "+tcp6.Addr().String())
	}
	connected, err := net.Dial("udp4", udp4.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()
	stream, err := net.Dial("tcp4", tcp4.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var got, missing []string
	for range 3 { // the kernel tells in pieces, and may skip one when others come and go between two of them
		all, err := Own()
		if err != nil {
			t.Fatal(err)
		}
		got = got[:0]
		for _, s := range all {
			got = append(got, s.String())
		}
		missing = slices.DeleteFunc(slices.Clone(want), func(w string) bool { return slices.Contains(got, w) })
		if len(missing) == 0 {
			break
		}
	}
	if len(missing) > 0 {
		t.Errorf("no %q in %q", missing, got)
	}
	for _, c := range []string{"udp " + connected.LocalAddr().String(), "tcp " + stream.LocalAddr().String()} {
		if slices.Contains(got, c) {
			t.Errorf("%s is connected, and nobody else reaches it", c)
		}
	}
	if err := tcp4.Close(); err != nil {
		t.Fatal(err)
	}
	if all, err := Own(); err != nil || slices.ContainsFunc(all, func(s Socket) bool { return s.String() == want[0] }) {
		t.Errorf("a socket that was closed is still there: %v, %v", all, err)
	}
}

func TestParseLine_RefusesWhatIsNone(t *testing.T) {
	for _, line := range []string{
		"", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
		"0: 0100007F 00000000:0000 0A 0 0 0 0 0 1", "0: 01:24AC 0:0 0A 0 0 0 0 0 1", "0: 0100007F:FFFFF 0:0 0A 0 0 0 0 0 1",
	} {
		if addr, _, _, ok := parseLine(line); ok {
			t.Errorf("%q is %v", line, addr)
		}
	}
}
