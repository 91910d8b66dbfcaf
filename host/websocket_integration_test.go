package host_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
)

// connectProxy is an HTTP proxy that makes tunnels and nothing else.
type connectProxy struct {
	*httptest.Server
	to   func(target string) string // where a tunnel to a target really leads; "" refuses it
	user *url.Userinfo              // whom it lets in; nil: everybody

	mu      sync.Mutex
	targets []string
	tunnels sync.WaitGroup
}

// newConnectProxy starts a proxy whose tunnels all lead to one address.
func newConnectProxy(t *testing.T, over func(http.Handler) *httptest.Server, to func(string) string) *connectProxy {
	t.Helper()
	p := &connectProxy{to: to}
	p.Server = over(p)
	t.Cleanup(func() {
		p.Close()
		p.tunnels.Wait()
	})
	return p
}

// ServeHTTP implements [http.Handler].
func (p *connectProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "tunnels only", http.StatusMethodNotAllowed)
		return
	}
	p.mu.Lock()
	p.targets = append(p.targets, r.Host)
	p.mu.Unlock()
	if p.user != nil {
		r.Header.Set("Authorization", r.Header.Get("Proxy-Authorization"))
		name, password, _ := r.BasicAuth()
		if want, _ := p.user.Password(); name != p.user.Username() || password != want {
			http.Error(w, "who are you?", http.StatusProxyAuthRequired)
			return
		}
	}
	to := p.to(r.Host)
	if to == "" {
		http.Error(w, "not there", http.StatusForbidden)
		return
	}
	far, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = far.Close()
		return
	}
	_, _ = io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n")
	p.tunnels.Go(func() { tunnel(near, buffered.Reader, far) })
}

// tunnel copies both ways until either end has ended, and closes both.
func tunnel(near net.Conn, said *bufio.Reader, far net.Conn) {
	var wg sync.WaitGroup
	for _, way := range []struct {
		to   net.Conn
		from io.Reader
	}{{far, said}, {near, far}} {
		wg.Go(func() {
			_, _ = io.Copy(way.to, way.from)
			_, _ = near.Close(), far.Close()
		})
	}
	wg.Wait()
}

// asked returns what the proxy was asked to connect to.
func (p *connectProxy) asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.targets)
}

// webSocketOf returns the address at which h listens for WebSocket.
func webSocketOf(t *testing.T, h corehost.Host) ma.Multiaddr {
	t.Helper()
	if found := addrsOf(h, ma.P_WS); len(found) > 0 {
		return found[0]
	}
	t.Fatalf("no WebSocket among %v", host.Addrs(h))
	return nil
}

func TestWebSocket_ListensOnAPortOfItsOwnOrOnThatOfTCP(t *testing.T) {
	for name, at := range map[string]func(t *testing.T) corehost.Host{
		"its own": func(t *testing.T) corehost.Host {
			return newHost(t, host.Config{Listen: []string{loopback}, WebSocket: loopback})
		},
		"that of TCP": func(t *testing.T) corehost.Host { // found free by a host that was there a moment ago
			for try := 0; ; try++ {
				before := newHost(t, host.Config{Listen: []string{loopback}})
				free := "127.0.0.1:" + portOf(t, addrsOf(before, ma.P_TCP)[0], ma.P_TCP)
				_ = before.Close()
				h, err := host.New(host.Config{Listen: []string{free}, WebSocket: free})
				var taken *host.PortTakenError
				if errors.As(err, &taken) && try < 5 {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = h.Close() })
				return h
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			relay := at(t)
			socket, tcp := webSocketOf(t, relay), addrsOf(relay, ma.P_TCP)
			if len(tcp) != 1 || (portOf(t, tcp[0], ma.P_TCP) == portOf(t, socket, ma.P_TCP)) != (name == "that of TCP") {
				t.Errorf("listens at %v", host.Addrs(relay))
			}
			h := wan(t, host.Config{})
			for _, a := range []ma.Multiaddr{socket, tcp[0]} {
				c, err := host.DialVia(t.Context(), h, peer.AddrInfo{ID: relay.ID(), Addrs: []ma.Multiaddr{a}})
				if err != nil {
					t.Fatal(err)
				}
				if !c.RemoteMultiaddr().Equal(a) {
					t.Errorf("connected to %s, want %s", c.RemoteMultiaddr(), a)
				}
				if _, err := host.Ping(t.Context(), c); err != nil {
					t.Errorf("%s: %v", a, err)
				}
				_ = c.Close()
			}
		})
	}
}

func TestWebSocket_ATakenPort(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	h, err := host.New(host.Config{Listen: []string{"127.0.0.1:0"}, WebSocket: l.Addr().String()})
	if _, ok := errors.AsType[*host.PortTakenError](err); !ok {
		t.Errorf("host %v, error %v", h, err)
	}
}

func TestWebSocket_WhereThereIsNone(t *testing.T) {
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	other := newHost(t, host.Config{Listen: []string{loopback}})
	h := wan(t, host.Config{})
	for at, want := range map[string]string{
		web.Listener.Addr().String():                                    "no WebSocket is there: 404 Not Found",
		"127.0.0.1:" + portOf(t, addrsOf(other, ma.P_TCP)[0], ma.P_TCP): "no WebSocket is there: what answers does not speak HTTP",
	} {
		_, port, _ := strings.Cut(at, ":")
		_, err := host.DialVia(t.Context(), h, peer.AddrInfo{ID: other.ID(), Addrs: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/" + port + "/ws")}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestWebSocket_IsAnnounced(t *testing.T) {
	for announce, want := range map[string]string{"relay.example.org": "", "relay.example.org:80": "80"} {
		h := newHost(t, host.Config{Listen: []string{loopback}, WebSocket: loopback, Announce: []string{announce}})
		var socket, tcp, own string
		for _, a := range host.Addrs(h) {
			switch port, err := a.ValueForProtocol(ma.P_TCP); {
			case err != nil:
			case a[0].Protocol().Code == ma.P_IP4 && addr.WebSocket(a):
				own = port
			case a[0].Protocol().Code == ma.P_DNS && addr.WebSocket(a):
				socket = port
			case a[0].Protocol().Code == ma.P_DNS:
				tcp = port
			}
		}
		if socket == "" || socket != own || tcp == socket || want != "" && tcp != want {
			t.Errorf("%s: WebSocket at port %q, which listens at %q, and TCP at %q", announce, socket, own, tcp)
		}
	}
}

func plainHTTP(h http.Handler) *httptest.Server { return httptest.NewServer(h) }

// The address of a relay on the Internet stands for one on this machine, whose own are never dialed through a proxy.
func TestWebSocket_ThroughAProxy(t *testing.T) {
	relay := newHost(t, host.Config{Listen: []string{"127.0.0.1:0"}, WebSocket: "127.0.0.1:0"})
	inside := "127.0.0.1:" + portOf(t, webSocketOf(t, relay), ma.P_TCP)
	proxy := newConnectProxy(t, plainHTTP, func(target string) string {
		if strings.HasPrefix(target, "6.6.") {
			return ""
		}
		return inside
	})
	for name, tc := range map[string]struct {
		at     string
		env    map[string]string
		target string // "" where the proxy is not asked
		fails  string
	}{
		"an IP address": {at: "/ip4/5.5.5.5/tcp/443/ws", env: map[string]string{"HTTPS_PROXY": proxy.URL}, target: "5.5.5.5:443"},
		"IPv6":          {at: "/ip6/2001:470::1/tcp/443/ws", env: map[string]string{"https_proxy": proxy.URL}, target: "[2001:470::1]:443"},
		"a name that nobody here can look up": {
			at: "/dns/relay.invalid/tcp/443/ws", env: map[string]string{"HTTPS_PROXY": proxy.URL}, target: "relay.invalid:443",
		},
		"HTTP_PROXY alone": {at: "/ip4/5.5.5.5/tcp/443/ws", env: map[string]string{"HTTP_PROXY": proxy.URL}, target: "5.5.5.5:443"},
		"the proxy refuses": {
			at: "/ip4/6.6.6.6/tcp/443/ws", env: map[string]string{"HTTPS_PROXY": proxy.URL}, target: "6.6.6.6:443",
			fails: "makes no connection to 6.6.6.6:443: 403 Forbidden",
		},
		"no proxy for this machine": {at: webSocketOf(t, relay).String(), env: map[string]string{"HTTPS_PROXY": proxy.URL}},
		"a proxy that is none": {
			at: "/ip4/5.5.5.5/tcp/443/ws", env: map[string]string{"HTTPS_PROXY": "socks5://127.0.0.1:1"}, fails: "only http and https proxies",
		},
	} {
		t.Run(name, func(t *testing.T) {
			proxies(t, tc.env)
			before := len(proxy.asked())
			h := wan(t, host.Config{})
			c, err := host.DialVia(t.Context(), h, peer.AddrInfo{ID: relay.ID(), Addrs: []ma.Multiaddr{ma.StringCast(tc.at)}})
			asked := proxy.asked()[before:]
			if tc.target == "" && len(asked) > 0 || tc.target != "" && !slices.Equal(asked, []string{tc.target}) {
				t.Errorf("the proxy was asked for %q, want %q", asked, tc.target)
			}
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("error %v, want one with %q", err, tc.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := c.RemoteMultiaddr().String(); got != tc.at {
				t.Errorf("connected to %s", got)
			}
			if got := c.ConnState().Transport; got != "websocket" {
				t.Errorf("over %s", got)
			}
			if r := <-ping.Ping(t.Context(), h, relay.ID()); r.Error != nil {
				t.Error(r.Error)
			}
		})
	}
}

// proxies sets what the environment says of proxies, and nothing else of them.
func proxies(t *testing.T, env map[string]string) {
	t.Helper()
	for _, v := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"} {
		t.Setenv(v, env[v])
	}
}

func TestProxyFor_NoProxy(t *testing.T) {
	for list, want := range map[string]bool{
		"":                      true,
		"relay.example.org":     false,
		".example.org":          false,
		"example.org":           false,
		"relay.example.org:443": false,
		"relay.example.org:80":  true,
		"other.example.org":     true,
		"*":                     false,
	} {
		proxies(t, map[string]string{"HTTPS_PROXY": "http://proxy.example.org:3128", "NO_PROXY": list})
		if got, err := host.ProxyFor("relay.example.org:443"); err != nil || (got != nil) != want {
			t.Errorf("NO_PROXY=%s: %v, error %v", list, got, err)
		}
	}
	proxies(t, map[string]string{"HTTPS_PROXY": "http://proxy.example.org:3128", "NO_PROXY": "5.5.0.0/16"})
	for at, want := range map[string]bool{"5.5.5.5:443": false, "5.6.5.5:443": true, "localhost:443": false, "[::1]:443": false} {
		if got, err := host.ProxyFor(at); err != nil || (got != nil) != want {
			t.Errorf("%s: %v, error %v", at, got, err)
		}
	}
}

func TestWebSocket_AProxyThatAsksForAName(t *testing.T) {
	relay := newHost(t, host.Config{Listen: []string{loopback}, WebSocket: loopback})
	inside := "127.0.0.1:" + portOf(t, webSocketOf(t, relay), ma.P_TCP)
	proxy := newConnectProxy(t, plainHTTP, func(string) string { return inside })
	proxy.user = url.UserPassword("alice", "p@ss")
	to := peer.AddrInfo{ID: relay.ID(), Addrs: []ma.Multiaddr{ma.StringCast("/ip4/5.5.5.5/tcp/443/ws")}}
	h := wan(t, host.Config{})

	proxies(t, map[string]string{"HTTPS_PROXY": proxy.URL})
	if _, err := host.DialVia(t.Context(), h, to); err == nil || !strings.Contains(err.Error(), "wants a name and a password") {
		t.Errorf("without a name: error %v", err)
	}
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	at.User = proxy.user
	proxies(t, map[string]string{"HTTPS_PROXY": at.String()})
	if _, err := host.DialVia(t.Context(), h, to); err != nil {
		t.Error(err)
	}
}

// TLS, to the proxy or to what is behind it, stands or falls with the certificate: nobody here trusts that of the test.
func TestWebSocket_TLSNamesWhomItWants(t *testing.T) {
	var mu sync.Mutex
	var names []string
	tlsServer := func(h http.Handler) *httptest.Server {
		s := httptest.NewUnstartedServer(h)
		s.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			mu.Lock()
			defer mu.Unlock()
			names = append(names, hello.ServerName)
			return nil, nil
		}}
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
		s.StartTLS()
		return s
	}
	front := tlsServer(http.NotFoundHandler())
	defer front.Close()
	plain := newConnectProxy(t, plainHTTP, func(string) string { return front.Listener.Addr().String() })
	secure := newConnectProxy(t, tlsServer, func(string) string { return "" })
	named, err := url.Parse(secure.URL)
	if err != nil {
		t.Fatal(err)
	}
	named.Host = "localhost:" + named.Port()
	relay := newHost(t, host.Config{})
	h := wan(t, host.Config{})
	for _, tc := range []struct{ proxy, at, name string }{
		{plain.URL, "/dns/relay.invalid/tcp/443/wss", "relay.invalid"},
		{plain.URL, "/ip4/5.5.5.5/tcp/443/tls/sni/relay.invalid/ws", "relay.invalid"},
		{named.String(), "/dns/relay.invalid/tcp/443/ws", "localhost"},
	} {
		proxies(t, map[string]string{"HTTPS_PROXY": tc.proxy})
		names = nil
		_, err := host.DialVia(t.Context(), h, peer.AddrInfo{ID: relay.ID(), Addrs: []ma.Multiaddr{ma.StringCast(tc.at)}})
		mu.Lock()
		if err == nil || !strings.Contains(err.Error(), "certificate") || !slices.Equal(names, []string{tc.name}) {
			t.Errorf("%s through %s: the name %q, error %v", tc.at, tc.proxy, names, err)
		}
		mu.Unlock()
	}
}
