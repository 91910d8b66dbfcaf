package portmap

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

const (
	// searchEvery is how long a search waits before it asks again, searchTries how often it asks, and searchWait how long
	// it listens in all: routers may take the second that they are given to answer.
	searchEvery = 300 * time.Millisecond
	searchTries = 3
	searchWait  = 3 * time.Second

	maxSearchAnswer = 4 << 10
)

// searchGroup is where UPnP devices listen.
func searchGroup() netip.AddrPort { return netip.MustParseAddrPort("239.255.255.250:1900") }

// searchTargets are the kinds of device that are looked for.
func searchTargets() []string {
	return []string{
		"urn:schemas-upnp-org:device:InternetGatewayDevice:1",
		"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
	}
}

// search asks the link for Internet gateways and returns where the one at the gateway's address describes itself. Others
// may say what they like: what they mapped would lead nowhere.
func search(ctx context.Context, group netip.AddrPort, inside, gateway netip.Addr) (*url.URL, error) {
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, "udp4", netip.AddrPortFrom(inside, 0).String())
	if err != nil {
		return nil, err
	}
	var asking sync.WaitGroup
	defer asking.Wait()
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(ctx, searchWait)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })()
	asking.Go(func() {
		for range searchTries {
			for _, target := range searchTargets() {
				_, _ = c.WriteTo([]byte(searchText(group, target)), net.UDPAddrFromAddrPort(group))
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(searchEvery):
			}
		}
	})
	b := make([]byte, maxSearchAnswer)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return nil, errNoAnswer
		}
		if at, ok := from.(*net.UDPAddr); !ok || at.AddrPort().Addr().Unmap() != gateway {
			continue
		}
		if location, err := parseSearchAnswer(b[:n], gateway); err == nil {
			return location, nil
		}
	}
}

func searchText(group netip.AddrPort, target string) string {
	return "M-SEARCH * HTTP/1.1\r\nHOST: " + group.String() + "\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: " + target + "\r\n\r\n"
}

// parseSearchAnswer returns where a device says that it describes itself, which must be at its own address.
func parseSearchAnswer(b []byte, from netip.Addr) (*url.URL, error) {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	location, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		return nil, err
	}
	if location.Scheme != "http" || location.Hostname() != from.String() {
		return nil, fmt.Errorf("it leads to %q", location.Redacted())
	}
	return location, nil
}
