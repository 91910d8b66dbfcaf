package host

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	libp2pws "github.com/libp2p/go-libp2p/p2p/transport/websocket"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// webSocketTimeout bounds the way to a WebSocket: the proxy, TLS and HTTP.
const webSocketTimeout = 10 * time.Second

// webSocketTransport is libp2p's WebSocket, but for its dials, which go through the proxy that the environment names:
// libp2p's would ask HTTP_PROXY alone for /ws, would not get through to a proxy that itself speaks TLS, and would look up
// names that only the proxy knows. What it carries is encrypted and authenticated inside, with TLS around it or without.
type webSocketTransport struct {
	*libp2pws.WebsocketTransport
	upgrader transport.Upgrader
	rm       network.ResourceManager
}

var (
	_ transport.Transport    = (*webSocketTransport)(nil)
	_ transport.Resolver     = (*webSocketTransport)(nil)
	_ transport.SkipResolver = (*webSocketTransport)(nil)
)

func newWebSocket(u transport.Upgrader, rm network.ResourceManager, listeners *tcpreuse.ConnMgr) (*webSocketTransport, error) {
	t, err := libp2pws.New(u, rm, listeners)
	if err != nil {
		return nil, err
	}
	return &webSocketTransport{t, u, rm}, nil
}

// SkipResolve implements [transport.SkipResolver]: a proxy looks names up, some of which nobody else here can.
func (t *webSocketTransport) SkipResolve(_ context.Context, a ma.Multiaddr) bool {
	to, err := webSocketAt(a)
	if err != nil {
		return false
	}
	proxy, err := proxyFor(to.hostport)
	return err == nil && proxy != nil
}

// Dial implements [transport.Transport].
func (t *webSocketTransport) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	scope, err := t.rm.OpenConnection(network.DirOutbound, true, a)
	if err != nil {
		return nil, err
	}
	c, err := t.dial(ctx, a, p, scope)
	if err != nil {
		scope.Done()
		return nil, err
	}
	return webSocketConn{c}, nil
}

func (t *webSocketTransport) dial(ctx context.Context, a ma.Multiaddr, p peer.ID, scope network.ConnManagementScope) (transport.CapableConn, error) {
	if err := scope.SetPeer(p); err != nil {
		return nil, err
	}
	c, err := dialWebSocket(ctx, a)
	if err != nil {
		return nil, err
	}
	return t.upgrader.Upgrade(ctx, t, c, network.DirOutbound, p, scope)
}

// webSocketConn says over what a connection goes.
type webSocketConn struct{ transport.CapableConn }

// ConnState implements [network.ConnSecurity].
func (c webSocketConn) ConnState() network.ConnectionState {
	s := c.CapableConn.ConnState()
	s.Transport = "websocket"
	return s
}

// webSocketPlace is what a WebSocket address names.
type webSocketPlace struct {
	hostport string
	secure   bool   // TLS around it
	name     string // of the certificate
}

// webSocketAt reads an address: /ip4/…/tcp/…/ws, with /dns instead of /ip4, and /tls/ws, /tls/sni/name/ws or /wss.
func webSocketAt(a ma.Multiaddr) (webSocketPlace, error) {
	_, hostport, err := manet.DialArgs(a)
	if err != nil {
		return webSocketPlace{}, err
	}
	to := webSocketPlace{hostport: hostport}
	if to.name, _, err = net.SplitHostPort(hostport); err != nil {
		return webSocketPlace{}, err
	}
	for _, c := range a {
		switch c.Protocol().Code {
		case ma.P_TLS, ma.P_WSS:
			to.secure = true
		case ma.P_SNI:
			to.name = c.Value()
		}
	}
	return to, nil
}

// dialWebSocket connects to a WebSocket, through a proxy if the environment names one for it.
func dialWebSocket(ctx context.Context, a ma.Multiaddr) (manet.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, webSocketTimeout)
	defer cancel()
	to, err := webSocketAt(a)
	if err != nil {
		return nil, err
	}
	proxy, err := proxyFor(to.hostport)
	if err != nil {
		return nil, err
	}
	d := websocket.Dialer{
		NetDialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			if proxy != nil {
				return dialThrough(ctx, proxy, to.hostport)
			}
			var d net.Dialer
			return d.DialContext(ctx, network, to.hostport)
		},
		TLSClientConfig: &tls.Config{ServerName: to.name, MinVersion: tls.VersionTLS12},
	}
	url := "ws://" + to.hostport
	if to.secure {
		url = "wss://" + to.hostport
	}
	header := http.Header{}
	if to.secure {
		_, port, _ := net.SplitHostPort(to.hostport)
		header.Set("Host", net.JoinHostPort(to.name, port))
	}
	c, resp, err := d.DialContext(ctx, url, header)
	switch {
	case errors.Is(err, websocket.ErrBadHandshake) && resp != nil:
		return nil, fmt.Errorf("no WebSocket is there: %s", resp.Status)
	case err != nil && strings.Contains(err.Error(), "malformed HTTP"): // an error without a type
		return nil, errors.New("no WebSocket is there: what answers does not speak HTTP")
	case err != nil:
		return nil, err
	}
	conn, err := newSocket(c, a)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return conn, nil
}
