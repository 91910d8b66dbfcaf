package mdns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/lynn9388/p2p/internal/addr"
)

const (
	// settleTime is how long a reason for finding nobody must hold before it is told: interfaces and addresses come
	// one after the other. Before that a node waits loopTime to hear itself, and silenceTime to hear others.
	settleTime, loopTime, silenceTime = 2 * time.Second, time.Second, 4 * time.Second

	textStopped  = "mDNS does not run"
	textStarting = "looking for nodes on the local links"
	ruleText     = "let UDP port 5353 to 224.0.0.251 and ff02::fb in, for example: ufw allow in proto udp to 224.0.0.251 port 5353, or firewall-cmd --add-service=mdns"
)

// judge finds out how the search goes and, when that has changed, says so.
func (r *run) judge(now time.Time) {
	state := State{Interfaces: r.interfaceStates(), Peers: r.table.count(0)}
	state.Reason, state.Text = r.reason(state, now)
	if state.Reason != r.doubt {
		r.doubt, r.doubted = state.Reason, now
	}
	last := r.State()
	if last.Reason == Stopped {
		last.Reason, last.Text = Starting, textStarting
	}
	if complains(state.Reason) && now.Sub(r.doubted) < settleTime {
		state.Reason, state.Text = last.Reason, last.Text
	}
	r.setState(state)
}

// complains tells whether a reason explains why nobody was found.
func complains(r Reason) bool { return r != Found && r != Starting && r != Stopped }

func (r *run) interfaceStates() []InterfaceState {
	var out []InterfaceState
	for _, i := range sorted(r.ifaces) {
		s := InterfaceState{
			Name: i.Name, Loopback: i.Flags&net.FlagLoopback != 0, Bridge: i.Virtual(), Peers: r.table.count(i.Index),
		}
		for _, v6 := range []bool{false, true} {
			l := r.links[linkID{i.Index, v6}]
			if l == nil {
				continue
			}
			s.Used = s.Used || l.conn != nil
			s.Looped = s.Looped || l.looped
			if s.Err == nil {
				s.Err = l.err
			}
		}
		for _, e := range r.table.entries {
			s.Heard = later(s.Heard, e.heardOn[i.Index])
		}
		out = append(out, s)
	}
	return out
}

// reason tells which reason holds, the most telling first.
func (r *run) reason(s State, now time.Time) (Reason, string) {
	age := now.Sub(r.began)
	switch {
	case s.Peers > 0:
		return Found, foundText(s)
	case !r.known:
		return Starting, textStarting
	}
	if reason, text := r.structure(s); reason != "" {
		return reason, text
	}
	lan := slices.DeleteFunc(slices.Clone(s.Interfaces), func(i InterfaceState) bool { return i.Loopback || !i.Used })
	names := joinNames(lan)
	looped := slices.ContainsFunc(lan, func(i InterfaceState) bool { return i.Looped })
	switch {
	case !looped && age >= loopTime && r.announces():
		return NotLooped, "the node does not hear its own multicast DNS packets on " + names +
			": a firewall of this machine drops them: " + ruleText
	case age < silenceTime:
		return Starting, "looking for nodes on " + names
	default:
		return Silent, "nobody answers on " + names + ": start a second node with the same network name on this link, and if it is there " +
			"see that the switch or access point lets multicast through (client isolation off) and that no firewall drops UDP port 5353; " +
			"without multicast, join a node by its address"
	}
}

// structure tells why nobody can be found whatever one waits for; no reason: somebody could be.
func (r *run) structure(s State) (Reason, string) {
	var lan, bridges, refused, unused []InterfaceState
	for i, state := range s.Interfaces {
		switch carries := usable(sorted(r.ifaces)[i]); {
		case state.Err != nil && !state.Used:
			refused = append(refused, state)
		case state.Loopback:
		case !carries:
		case !state.Used:
			unused = append(unused, state)
		case state.Bridge:
			bridges = append(bridges, state)
		default:
			lan = append(lan, state)
		}
	}
	switch {
	case len(lan) > 0:
		return "", ""
	case len(refused) > 0:
		return Refused, fmt.Sprintf("multicast DNS cannot be used on %s: %v: end the program that holds UDP port 5353 for itself, "+
			"or join a node by its address", joinNames(refused), refused[0].Err)
	case r.loopbackOnly():
		return LocalOnly, "the node listens on this machine only (localhost), so only nodes of this machine are found"
	case len(bridges) > 0:
		return Container, "there is no network, only the bridges of containers or virtual machines (" + joinNames(bridges) +
			"): nodes of other machines cannot be found; connect a network, or in a container use the host's network, " +
			"or join a node by its address"
	case len(unused) > 0:
		return NoAddress, "the node listens at no address of " + joinNames(unused) +
			": listen at :9388 (all addresses), or at an address that the interface has"
	default:
		return NoInterface, "no network interface is up that carries multicast, so only nodes of this machine can be found: " +
			"connect a network, or join a node by its address"
	}
}

// loopbackOnly tells whether the host listens at loopback addresses alone.
func (r *run) loopbackOnly() bool {
	listen := r.host.Network().ListenAddresses()
	return len(listen) > 0 && addr.LoopbackOnly(listen)
}

// announces tells whether there is a network that the node has told its addresses.
func (r *run) announces() bool {
	for _, l := range r.links {
		if l.iface.Flags&net.FlagLoopback == 0 && len(l.addrs) > 0 && !l.sent.IsZero() {
			return true
		}
	}
	return false
}

func foundText(s State) string {
	var at []InterfaceState
	for _, i := range s.Interfaces {
		if i.Peers > 0 {
			at = append(at, i)
		}
	}
	return fmt.Sprintf("%d found on %s", s.Peers, joinNames(at))
}

func joinNames(list []InterfaceState) string {
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return strings.Join(names, ", ")
}

// setState publishes the state and logs a new reason: what a person should act on at Warn, what explains at Info.
func (s *Source) setState(state State) {
	s.mu.Lock()
	old := s.state
	state.Since = old.Since
	if old.Reason != state.Reason {
		state.Since = time.Now()
	}
	s.state = state
	s.mu.Unlock()
	if old.Reason == state.Reason {
		return
	}
	level := slog.LevelInfo
	switch state.Reason {
	case Starting, Found, Stopped:
		level = slog.LevelDebug
	case Refused, NotLooped, NoAddress:
		level = slog.LevelWarn
	case NoInterface, LocalOnly, Container, Silent:
	}
	s.log.Log(context.Background(), level, "mdns", "reason", string(state.Reason), "text", state.Text)
}
