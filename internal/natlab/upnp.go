//go:build linux

package natlab

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/lynn9388/p2p/internal/poll"
)

// upnpConfig is miniupnpd's configuration.
const upnpConfig = `ext_ifname=wan
listening_ip=br0
enable_upnp=yes
enable_natpmp=yes
secure_mode=yes
uuid=00000000-0000-4000-8000-000000000001
upnp_table_name=filter
upnp_nat_table_name=nat
upnp_forward_chain=upnp
upnp_nat_chain=upnp
upnp_nat_postrouting_chain=upnp-post
allow 1024-65535 0.0.0.0/0 1024-65535
`

// startUPnP runs miniupnpd on the router. It skips the test where that is missing.
func (r *Router) startUPnP() {
	tb := r.lab.tb
	tb.Helper()
	if _, err := exec.LookPath("miniupnpd"); err != nil {
		tb.Skip("no NAT lab with UPnP: the command miniupnpd is missing")
	}
	dir := tb.TempDir()
	config := filepath.Join(dir, "miniupnpd.conf")
	r.lab.must(os.WriteFile(config, []byte(upnpConfig), 0o600), "miniupnpd")
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	cmd := r.host.Command(ctx, "miniupnpd", "-d", "-f", config, "-P", filepath.Join(dir, "pid"))
	log, err := os.Create(filepath.Join(dir, "log"))
	r.lab.must(err, "miniupnpd")
	cmd.Stdout, cmd.Stderr = log, log
	r.lab.must(cmd.Start(), "miniupnpd")
	tb.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
		_ = log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && tb.Failed() {
			tb.Logf("miniupnpd:\n%s", text)
		}
	})
	poll.Until(tb, 10*time.Second, poll.Not("miniupnpd does not listen", func() bool { return r.listens("udp", 5351) && r.listens("udp", 1900) }))
}
