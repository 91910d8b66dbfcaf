package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/sockets"
)

const (
	namePorts    = "ports"
	multicastDNS = "udp 5353"
)

// Ports compares the sockets that the process has with those that it is to have by what it listens at: those of the table
// in docs/security.md. mdns tells whether the node searches links; own is what [sockets.Own] returned.
func Ports(listen []ma.Multiaddr, mdns bool, own []sockets.Socket, err error) Check {
	wanted := wantedPorts(listen)
	list := strings.Join(wanted, ", ")
	switch {
	case errors.Is(err, sockets.ErrUnsupported):
		return unknown(namePorts, "%s; what is really open is not known on this system", list)
	case err != nil:
		return unknown(namePorts, "%s; what is really open cannot be read: %v", list, err)
	}
	var extra []string
	missing := slices.Clone(wanted)
	for _, s := range own {
		text := fmt.Sprintf("%s %d", s.Network, s.Addr.Port())
		missing = slices.DeleteFunc(missing, func(w string) bool { return w == text })
		switch {
		case slices.Contains(wanted, text) || momentary(s):
		case mdns && text == multicastDNS: // whether it is to be open depends on the links
			wanted = append(wanted, text)
		default:
			extra = append(extra, s.String())
		}
	}
	list = strings.Join(wanted, ", ")
	switch {
	case len(missing) > 0:
		return fail(namePorts, "%s is not open although the node is to listen there", strings.Join(missing, ", ")).todo("restart the node, and look at its log")
	case len(extra) > 0:
		return warn(namePorts, "open are %s, and also %s, which is no port of the node's", list, strings.Join(extra, ", ")).todo("see who opened it: ss -lntup")
	}
	return pass(namePorts, "open are %s, and no others", list)
}

// wantedPorts are the ports that a node has by what it listens at, each once.
func wantedPorts(listen []ma.Multiaddr) []string {
	var out []string
	for _, a := range listen {
		for _, p := range []struct {
			code int
			name string
		}{{ma.P_TCP, "tcp"}, {ma.P_UDP, "udp"}} {
			if port, err := a.ValueForProtocol(p.code); err == nil && !slices.Contains(out, p.name+" "+port) {
				out = append(out, p.name+" "+port)
			}
		}
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(strings.Compare(a[:3], b[:3]), portOf(a)-portOf(b)) })
	return out
}

func portOf(s string) int {
	_, port, _ := strings.Cut(s, " ")
	n, _ := strconv.Atoi(port)
	return n
}

// momentary tells whether a socket is one from which the process asks: with a port that the system chose.
func momentary(s sockets.Socket) bool { return s.Network == "udp" && s.Addr.Port() >= 32768 }
