package host

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Interface is a network interface and its addresses at one moment.
type Interface struct {
	Index int    // as the system counts, from 1
	Name  string // such as "eth0"
	Flags net.Flags
	Addrs []netip.Prefix // IPv6 addresses without a zone
}

// Interfaces returns the machine's interfaces that are up, by index, each with its addresses in order.
func Interfaces() ([]Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("host: list the network interfaces: %w", err)
	}
	var out []Interface
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil { // gone since
			continue
		}
		out = append(out, Interface{Index: i.Index, Name: i.Name, Flags: i.Flags, Addrs: prefixes(addrs)})
	}
	slices.SortFunc(out, func(a, b Interface) int { return cmp.Compare(a.Index, b.Index) })
	return out, nil
}

func prefixes(addrs []net.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		if !ok {
			continue
		}
		ones, bits := n.Mask.Size()
		if ip = ip.Unmap(); ip.Is4() && bits == 128 {
			ones -= 96
		}
		out = append(out, netip.PrefixFrom(ip, ones))
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

func (i Interface) equal(j Interface) bool {
	return i.Index == j.Index && i.Name == j.Name && i.Flags == j.Flags && slices.Equal(i.Addrs, j.Addrs)
}

// Virtual tells by its name whether the interface belongs to containers or virtual machines of this machine: what it
// leads to is no network of other machines.
func (i Interface) Virtual() bool {
	if strings.HasPrefix(i.Name, "br-") { // Docker's own networks, by a hexadecimal ID; "br-lan" is a router's real one
		return len(i.Name) == len("br-")+12
	}
	return slices.ContainsFunc([]string{
		"docker", "virbr", "cni", "podman", "lxcbr", "lxdbr", "incusbr", "flannel", "cali", "cilium", "kube-", "veth",
		"vnet", "vmnet", "vboxnet", "nerdctl", "vEthernet", "bridge10",
	}, func(p string) bool { return strings.HasPrefix(i.Name, p) })
}

// watchInterval is how often [WatchInterfaces] looks.
const watchInterval = time.Second

// WatchInterfaces calls changed with the interfaces at once and again whenever they have changed, until ctx ends,
// which is no error. It looks each second and calls from the goroutine it was called in. It fails only if the
// interfaces cannot be listed at the start; later it tries again.
func WatchInterfaces(ctx context.Context, changed func([]Interface)) error {
	return watch(ctx, Interfaces, changed)
}

func watch(ctx context.Context, list func() ([]Interface, error), changed func([]Interface)) error {
	last, err := list()
	if err != nil {
		return err
	}
	changed(last)
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := list()
		if err != nil || slices.EqualFunc(last, now, Interface.equal) {
			continue
		}
		last = now
		changed(now)
	}
}
