//go:build linux

package natlab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// proxyPort is where the router of an office has its HTTP proxy.
const proxyPort = 3128

// proxy is an HTTP proxy that knows CONNECT to port 443 and nothing else, as those of offices do.
type proxy struct {
	router *Router
	at     netip.AddrPort
	wait   sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	ended bool
}

// Proxy is the URL of the proxy in the router of the kind ProxyOnly.
func (r *Router) Proxy() string {
	r.lab.tb.Helper()
	if r.proxy == nil {
		r.lab.tb.Fatalf("natlab: a router of kind %v has no proxy", r.kind)
	}
	return "http://" + r.proxy.at.String()
}

// startProxy runs the proxy in the test's own process with sockets in the router.
func (r *Router) startProxy() {
	tb := r.lab.tb
	tb.Helper()
	ip := r.host.IP("br0")
	if !ip.IsValid() {
		ip = r.host.IP6("br0")
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	p := &proxy{router: r, at: netip.AddrPortFrom(ip, proxyPort), conns: map[net.Conn]bool{}}
	var ln net.Listener
	err := r.host.Do(func() (err error) {
		ln, err = new(net.ListenConfig).Listen(ctx, "tcp", p.at.String())
		return err
	})
	r.lab.must(err, "proxy")
	p.wait.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			p.wait.Go(func() { p.serve(ctx, conn) })
		}
	})
	tb.Cleanup(func() {
		cancel()
		_ = ln.Close()
		p.mu.Lock()
		p.ended = true
		for conn := range p.conns {
			_ = conn.Close()
		}
		p.mu.Unlock()
		p.wait.Wait()
	})
	r.proxy = p
}

// keep remembers a connection for the end, or closes it when that has come.
func (p *proxy) keep(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[conn] = true
	if p.ended {
		_ = conn.Close()
	}
}

func (p *proxy) drop(conn net.Conn) {
	p.mu.Lock()
	delete(p.conns, conn)
	p.mu.Unlock()
	_ = conn.Close()
}

func (p *proxy) serve(ctx context.Context, client net.Conn) {
	p.keep(client)
	defer p.drop(client)
	_ = client.SetDeadline(time.Now().Add(30 * time.Second))
	reader := bufio.NewReader(client)
	request, err := http.ReadRequest(reader)
	if err != nil {
		return
	}
	if request.Method != http.MethodConnect || !strings.HasSuffix(request.Host, ":443") {
		_, _ = io.WriteString(client, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		return
	}
	var server net.Conn
	err = p.router.host.Do(func() (err error) {
		// A plain IP address and no race between addresses: the dial stays on this thread.
		d := net.Dialer{Timeout: 10 * time.Second, FallbackDelay: -1}
		server, err = d.DialContext(ctx, "tcp", request.Host)
		return err
	})
	if err != nil {
		_, _ = io.WriteString(client, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	p.keep(server)
	defer p.drop(server)
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	_ = client.SetDeadline(time.Time{})
	var both sync.WaitGroup
	copyTo := func(to net.Conn, from io.Reader) {
		_, _ = io.Copy(to, from)
		_ = to.Close() // half-closed connections are nothing that libp2p needs
	}
	both.Go(func() { copyTo(server, reader) })
	both.Go(func() { copyTo(client, server) })
	both.Wait()
}

// listens tells whether a program on the router has a socket at the port.
func (r *Router) listens(proto string, port int) bool {
	found := false
	err := r.host.Do(func() error {
		for _, suffix := range []string{"", "6"} {
			// Of this thread: the process is elsewhere.
			table, err := os.ReadFile("/proc/thread-self/net/" + proto + suffix)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(table)) {
				fields := strings.Fields(line)
				if len(fields) > 1 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
					found = true
				}
			}
		}
		return nil
	})
	return err == nil && found
}
