package host

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// proxyFor returns the HTTP proxy that the environment names for a host and port: HTTPS_PROXY, since what is to come
// is a tunnel, whatever is in it; HTTP_PROXY where that one is not set. NO_PROXY names hosts that are dialed directly, and
// those of this machine always are. Nil is no proxy.
func proxyFor(hostport string) (*url.URL, error) {
	env := httpproxy.FromEnvironment()
	if env.HTTPSProxy == "" {
		env.HTTPSProxy = env.HTTPProxy
	}
	proxy, err := env.ProxyFunc()(&url.URL{Scheme: "https", Host: hostport})
	if err != nil {
		return nil, fmt.Errorf("the environment's HTTPS_PROXY: %w", err)
	}
	return proxy, nil
}

// proxyError is what a proxy answered instead of making a tunnel.
type proxyError struct {
	proxy  string
	target string
	status string
}

// Error implements error.
func (e *proxyError) Error() string {
	return fmt.Sprintf("the proxy %s makes no connection to %s: %s", e.proxy, e.target, e.status)
}

// dialThrough connects to the target through the proxy, by HTTP's CONNECT. The proxy looks names up.
func dialThrough(ctx context.Context, proxy *url.URL, target string) (net.Conn, error) {
	port := map[string]string{"http": "80", "https": "443"}[proxy.Scheme]
	if port == "" {
		return nil, fmt.Errorf("the environment's HTTPS_PROXY is %s: only http and https proxies are used", proxy.Redacted())
	}
	if p := proxy.Port(); p != "" {
		port = p
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(proxy.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("the proxy %s: %w", proxy.Host, err)
	}
	if proxy.Scheme == "https" {
		c = tls.Client(c, &tls.Config{ServerName: proxy.Hostname(), MinVersion: tls.VersionTLS12})
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	err = connectThrough(c, proxy, target)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = c.Close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("the proxy %s: %w", proxy.Host, ctx.Err())
		}
		return nil, err
	}
	return c, nil
}

// maxProxyHeader bounds what a proxy says before the tunnel begins.
const maxProxyHeader = 64 << 10

func connectThrough(c net.Conn, proxy *url.URL, target string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: target}, Host: target, Header: http.Header{}}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := req.Write(c); err != nil {
		return fmt.Errorf("the proxy %s: %w", proxy.Host, err)
	}
	// Whom the tunnel leads to says nothing before it is spoken to, so that no more than the answer is read.
	r := bufio.NewReader(io.LimitReader(c, maxProxyHeader))
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return fmt.Errorf("the proxy %s: %w", proxy.Host, err)
	}
	_ = resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK && r.Buffered() == 0:
		return nil
	case resp.StatusCode == http.StatusOK:
		return &proxyError{proxy.Host, target, "it speaks itself"}
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return &proxyError{proxy.Host, target, "it wants a name and a password: write them into HTTPS_PROXY, http://name:password@host:port"}
	default:
		return &proxyError{proxy.Host, target, fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))}
	}
}
