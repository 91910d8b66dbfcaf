package portmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

var here = netip.MustParseAddr("127.0.0.1")

// serveUDP answers each datagram with what f returns, nil for nothing.
func serveUDP(t *testing.T, f func(q []byte) [][]byte) netip.AddrPort {
	t.Helper()
	c, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		b := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			for _, a := range f(b[:n]) {
				_, _ = c.WriteTo(a, from)
			}
		}
	})
	t.Cleanup(func() {
		_ = c.Close()
		serving.Wait()
	})
	return netip.MustParseAddrPort(c.LocalAddr().String())
}

// pmpRouter answers as RFC 6886 says, after losing the first questions.
func pmpRouter(t *testing.T, lose int) netip.AddrPort {
	t.Helper()
	return serveUDP(t, func(q []byte) [][]byte {
		if lose--; lose >= 0 {
			return nil
		}
		a := make([]byte, 12, pmpMax)
		a[1] = q[1] + pmpAnswers
		if len(q) == 2 {
			return [][]byte{append(a[:8], 5, 0, 0, 1)}
		}
		copy(a[8:10], q[4:6])
		binary.BigEndian.PutUint16(a[10:], binary.BigEndian.Uint16(q[6:])+1) // it knows better
		a = append(a, q[8:12]...)
		other := append([]byte{}, a...)
		other[9]++ // an answer to a question of before
		return [][]byte{{1, 2, 3}, other, a}
	})
}

func TestNATPMP(t *testing.T) {
	p := pmp{pmpRouter(t, 1)}
	if got, err := p.external(t.Context()); err != nil || got != public {
		t.Errorf("outside address %v, error %v", got, err)
	}
	if got, err := p.add(t.Context(), tcp, 9388, time.Minute); err != nil || got != 9389 {
		t.Errorf("outside port %d, error %v", got, err)
	}
	if err := p.remove(t.Context(), tcp, 9389); err != nil {
		t.Error(err)
	}
}

func TestNATPMP_Fails(t *testing.T) {
	refusing := pmp{serveUDP(t, func(q []byte) [][]byte {
		a := make([]byte, 12)
		a[1], a[3] = q[1]+pmpAnswers, 2
		return [][]byte{a}
	})}
	if _, err := refusing.external(t.Context()); err == nil || !strings.Contains(err.Error(), "result code 2") {
		t.Errorf("a router that refuses: error %v", err)
	}
	silent := pmp{serveUDP(t, func([]byte) [][]byte { return nil })}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := silent.external(ctx); err == nil || time.Until(mustDeadline(ctx)) < -5*time.Second {
		t.Errorf("a silent router: error %v", err)
	}
}

func mustDeadline(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}

const describedRouter = `<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/l3</controlURL></service></serviceList>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/control</controlURL></service></serviceList>
</device></deviceList></device></deviceList></device></root>`

// upnpRouter answers as UPnP's Internet Gateway Device does, and returns where its search group is and what it was asked.
func upnpRouter(t *testing.T) (group netip.AddrPort, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var calls []string
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/describe" {
			_, _ = io.WriteString(w, describedRouter)
			return
		}
		args, err := leaves(r.Body)
		if err != nil {
			t.Error(err)
		}
		_, action, _ := strings.Cut(strings.Trim(r.Header.Get("SOAPAction"), `"`), "#")
		mu.Lock()
		calls = append(calls, fmt.Sprintf("%s %s %s %s", action, args["NewProtocol"], args["NewExternalPort"], args["NewLeaseDuration"]))
		mu.Unlock()
		fault := func(code int) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><detail><UPnPError>`+
				`<errorCode>%d</errorCode><errorDescription>no</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>`, code)
		}
		switch {
		case action == "GetExternalIPAddress":
			_, _ = io.WriteString(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:GetExternalIPAddressResponse `+
				`xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1"><NewExternalIPAddress>5.0.0.1</NewExternalIPAddress>`+
				`</u:GetExternalIPAddressResponse></s:Body></s:Envelope>`)
		case action == "AddPortMapping" && args["NewExternalPort"] == "443":
			fault(upnpConflict)
		case action == "AddPortMapping" && args["NewLeaseDuration"] != "0":
			fault(upnpPermanentOnly)
		}
	}))
	t.Cleanup(web.Close)
	group = serveUDP(t, func(q []byte) [][]byte {
		if !strings.Contains(string(q), "InternetGatewayDevice:1") {
			return nil
		}
		return [][]byte{
			[]byte("HTTP/1.1 200 OK\r\nLOCATION: http://10.0.0.1/elsewhere\r\n\r\n"),
			[]byte("HTTP/1.1 200 OK\r\nLOCATION: " + web.URL + "/describe\r\n\r\n"),
		}
	})
	return group, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return calls
	}
}

func TestUPnP(t *testing.T) {
	group, asked := upnpRouter(t)
	nobody := serveUDP(t, func([]byte) [][]byte { return nil })
	r, err := findAt(t.Context(), place{here, here}, nobody, group)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.external(t.Context()); err != nil || got != public || r.String() != "UPnP" {
		t.Errorf("outside address %v by %s, error %v", got, r, err)
	}
	if got, err := r.add(t.Context(), udp, 9388, time.Minute); err != nil || got != 9388 {
		t.Errorf("outside port %d, error %v", got, err)
	}
	if _, err := r.add(t.Context(), Port{"tcp", 443}, 443, time.Minute); !errors.Is(err, errPortTaken) {
		t.Errorf("a port that is another's: error %v", err)
	}
	if err := r.remove(t.Context(), udp, 9388); err != nil {
		t.Error(err)
	}
	const want = "GetExternalIPAddress   |AddPortMapping UDP 9388 60|AddPortMapping UDP 9388 0|AddPortMapping TCP 443 60|DeletePortMapping UDP 9388 "
	if got := strings.Join(asked(), "|"); got != want {
		t.Errorf("asked\n%s, want\n%s", got, want)
	}
}

func TestFind_TheFirstThatAnswers(t *testing.T) {
	nobody := serveUDP(t, func([]byte) [][]byte { return nil })
	r, err := findAt(t.Context(), place{here, here}, pmpRouter(t, 0), nobody)
	if err != nil || r.String() != "NAT-PMP" {
		t.Errorf("%v, error %v", r, err)
	}
}

// Whoever is not the gateway may say what it likes.
func TestSearch_BelievesTheGatewayOnly(t *testing.T) {
	group, _ := upnpRouter(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got, err := search(ctx, group, here, netip.MustParseAddr("127.0.0.2")); err == nil {
		t.Errorf("it believes %s", got)
	}
}

func TestParseDescription_LeadsNowhereElse(t *testing.T) {
	at, err := url.Parse("http://192.168.1.1:5000/root.xml")
	if err != nil {
		t.Fatal(err)
	}
	service, control, err := parseDescription(strings.NewReader(describedRouter), at)
	if err != nil || control.String() != "http://192.168.1.1:5000/control" || !strings.HasSuffix(service, "WANIPConnection:1") {
		t.Errorf("%s at %s, error %v", service, control, err)
	}
	for _, bad := range []string{
		"",
		"<root/>",
		strings.Replace(describedRouter, ">/control<", ">http://10.0.0.1/<", 1),
		strings.Replace(describedRouter, ">/control<", ">https://192.168.1.1/<", 1),
		strings.Replace(describedRouter, "<device>", "<URLBase>http://example.org/</URLBase><device>", 1),
		strings.Replace(describedRouter, "WANIPConnection:1", "WANIPConnection:7", 1),
	} {
		if service, control, err := parseDescription(strings.NewReader(bad), at); err == nil {
			t.Errorf("%s at %s of %.80s", service, control, bad)
		}
	}
}
