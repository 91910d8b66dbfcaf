//go:build linux

package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/grpcstream"
)

// setupEnv has a node's setup, as JSON. With it the test binary is a node.
const setupEnv = "P2P_NATLAB_NODE"

// setup says what node a process is.
type setup struct {
	Began     time.Time // just before the process was started
	Socket    string    // where it takes orders
	Key       []byte
	Profile   string // wan, relay or lan; stranger or carrier for what is no node
	Listen    string
	Network   string
	Relays    []string // of wan
	Join      []string
	Announce  []string
	WebSocket string
	Service   string // the service that it offers; empty: none
	Low, High int    // neighbors; 0: the default
	First     string // whom it calls as soon as it can: a peer, or a service if ByName
	ByName    bool
	DHT       bool
	Allow     []string // who may connect; empty: everybody
	Carry     int64    // how many bytes a carrier carries
	Mute      bool     // no multicast DNS
	Crowd     int      // how many further nodes the process has
	LogLevel  slog.Level
}

// player is the node of this process, and takes orders by net/rpc.
type player struct {
	setup setup
	node  *p2p.Node

	mu       sync.Mutex
	reserved time.Duration

	first     Called
	firstDone chan struct{}

	load  *load
	crowd crowd
}

// play runs a node until SIGTERM.
func play(text string) error {
	p := &player{firstDone: make(chan struct{})}
	if err := json.Unmarshal([]byte(text), &p.setup); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	end, err := p.start(ctx)
	if err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", p.setup.Socket)
	if err != nil {
		return errors.Join(err, end())
	}
	server := rpc.NewServer()
	if err := server.RegisterName("Node", orders{p}); err != nil {
		return errors.Join(err, end())
	}
	go server.Accept(ln)
	<-ctx.Done()
	return end()
}

// start starts what the process is, and returns what ends it.
func (p *player) start(ctx context.Context) (end func() error, err error) {
	switch p.setup.Profile {
	case "stranger":
		return func() error { return nil }, nil
	case "carrier":
		h, err := newCarrier(p.setup)
		if err != nil {
			return nil, err
		}
		return h.Close, nil
	}
	opts, err := p.setup.options()
	if err != nil {
		return nil, err
	}
	p.node = p2p.NewNode(p.setup.Listen, opts...)
	if p.setup.Service != "" {
		p.node.RegisterService(serviceDesc(p.setup.Service), nil)
	}
	if err := p.node.JoinNetwork(p.setup.Join...); err != nil {
		return nil, err
	}
	if err := p.node.StartServer(); err != nil {
		return nil, err
	}
	if err := p.crowd.gather(p.setup, p.setup.Crowd); err != nil {
		return nil, errors.Join(err, p.node.Close())
	}
	go p.watchReserved(ctx)
	go p.callFirst(ctx)
	return p.node.Close, nil
}

func (s setup) options() ([]p2p.Option, error) {
	key, err := crypto.UnmarshalPrivateKey(s.Key)
	if err != nil {
		return nil, err
	}
	opts := []p2p.Option{
		p2p.WithIdentity(key), p2p.WithNetwork(s.Network), p2p.WithAnnounce(s.Announce...),
		p2p.WithLogger(s.logger(key)),
		p2p.WithServerOptions(grpc.MaxRecvMsgSize(largest), grpc.MaxSendMsgSize(largest)),
		p2p.WithDialOptions(grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largest))),
	}
	switch s.Profile {
	case "wan":
		opts = append(opts, p2p.WAN(s.Relays...))
	case "relay":
		opts = append(opts, p2p.Relay())
	}
	switch {
	case len(s.Allow) > 0:
		for _, text := range s.Allow {
			id, err := peer.Decode(text)
			if err != nil {
				return nil, err
			}
			opts = append(opts, p2p.WithAllow(id))
		}
	case s.Profile != "lan":
		opts = append(opts, p2p.WithOpen())
	}
	if s.WebSocket != "" {
		opts = append(opts, p2p.WithWebSocket(s.WebSocket))
	}
	if s.High > 0 {
		opts = append(opts, p2p.WithNeighbors(s.Low, s.High))
	}
	if s.Mute {
		opts = append(opts, p2p.WithDiscovery())
	}
	if s.DHT {
		opts = append(opts, p2p.WithDHT())
	}
	return opts, nil
}

// logger writes to standard error, and says which node of the process it is if there are several.
func (s setup) logger(key crypto.PrivKey) *slog.Logger {
	l := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: s.LogLevel}))
	if id, err := peer.IDFromPrivateKey(key); err == nil && s.Crowd > 0 {
		l = l.With("node", id)
	}
	return l
}

// since is the time since the process was started.
func (p *player) since() time.Duration { return time.Since(p.setup.Began) }

// watchReserved notes when the node can first be reached through a relay.
func (p *player) watchReserved(ctx context.Context) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		for _, a := range p.node.Addrs() {
			if _, err := a.ValueForProtocol(ma.P_CIRCUIT); err == nil {
				p.mu.Lock()
				p.reserved = p.since()
				p.mu.Unlock()
				return
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// callFirst makes the call that the setup asks for, and again until it succeeds: how often it failed is told.
func (p *player) callFirst(ctx context.Context) {
	defer close(p.firstDone)
	if p.setup.First == "" {
		return
	}
	failed, why := 0, ""
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for ; ctx.Err() == nil; <-ticker.C {
		p.first = p.call(ctx, Call{Target: p.setup.First, ByName: p.setup.ByName, Timeout: 10 * time.Second})
		p.first.Failed, p.first.Why = failed, why
		if p.first.Err == "" {
			return
		}
		if failed++; why == "" {
			why = p.first.Err
		}
	}
}

// call is an order to call a peer, or whoever offers a service.
type Call struct {
	Target  string
	ByName  bool
	Give    uint32 // how many bytes to get; 0: an echo
	Timeout time.Duration
}

// called is what came of a call.
type Called struct {
	Err    string
	Failed int           // how many calls failed before
	Why    string        // the first of them did
	At     time.Duration // since the start of the process, when the answer came
	Took   time.Duration
	Peer   string
	Path   string // "direct" or "relay"
	Relay  string
}

func (p *player) target(name string, byName bool) (grpc.ClientConnInterface, string) {
	if byName {
		return p.node, name
	}
	return p.node.Peer(name), serviceName
}

func (p *player) call(ctx context.Context, c Call) (out Called) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	begin := time.Now()
	cc, service := p.target(c.Target, c.ByName)
	var at grpcpeer.Peer
	reply := new(wrapperspb.BytesValue)
	var err error
	if c.Give > 0 {
		err = cc.Invoke(ctx, "/"+service+"/Give", wrapperspb.UInt32(c.Give), reply, grpc.Peer(&at))
	} else {
		err = cc.Invoke(ctx, "/"+service+"/Echo", wrapperspb.Bytes([]byte("hello")), reply, grpc.Peer(&at))
	}
	out.Took, out.At = time.Since(begin), p.since()
	switch {
	case err != nil:
		out.Err = err.Error()
	case c.Give > 0 && len(reply.GetValue()) != int(c.Give), c.Give == 0 && string(reply.GetValue()) != "hello":
		out.Err = fmt.Sprintf("the answer has %d bytes", len(reply.GetValue()))
	}
	if info, ok := at.AuthInfo.(grpcstream.AuthInfo); ok {
		out.Peer, out.Path, out.Relay = info.Peer.ID.String(), string(info.Peer.Path), info.Peer.Relay.String()
	}
	return out
}

// link is a connection to a peer.
type link struct {
	Opened  time.Duration // since the start of the process
	Addr    string
	Relayed bool
	Inbound bool
}

func (p *player) links(id peer.ID) (out []link) {
	for _, c := range p.node.Host().Network().ConnsToPeer(id) {
		out = append(out, link{
			Opened: c.Stat().Opened.Sub(p.setup.Began), Addr: c.RemoteMultiaddr().String(), Relayed: c.Stat().Limited, Inbound: c.Stat().Direction.String() == "Inbound",
		})
	}
	return out
}

// orders are what the test tells the node.
type orders struct{ p *player }

// First waits for the call that the setup asked for.
func (o orders) First(_ struct{}, out *Called) error {
	<-o.p.firstDone
	*out = o.p.first
	return nil
}

// Call makes a call.
func (o orders) Call(in Call, out *Called) error {
	*out = o.p.call(context.Background(), in)
	return nil
}

// Reserved waits until the node can be reached through a relay, at most so long, and tells when that was; 0: it cannot.
func (o orders) Reserved(limit time.Duration, out *time.Duration) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for begin := time.Now(); time.Since(begin) < limit; <-ticker.C {
		o.p.mu.Lock()
		*out = o.p.reserved
		o.p.mu.Unlock()
		if *out > 0 {
			return nil
		}
	}
	return nil
}

// Wanted is a state of the connections to a peer.
type Wanted struct {
	Peer    string
	Relayed bool // a relayed connection; otherwise a direct one
	Limit   time.Duration
}

// Linked waits until there is such a connection, and tells of all there are.
func (o orders) Linked(in Wanted, out *[]link) error {
	id, err := peer.Decode(in.Peer)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for begin := time.Now(); ; <-ticker.C {
		*out = o.p.links(id)
		for _, l := range *out {
			if l.Relayed == in.Relayed {
				return nil
			}
		}
		if time.Since(begin) > in.Limit {
			return nil
		}
	}
}

// Standing is what a node tells of itself.
type Standing struct {
	Now      time.Duration // since the start of the process
	Reserved time.Duration // when it was first reachable through a relay; 0: not yet
	Addrs    []string
	Peers    []string // a line for each
	Known    int
	Neighbor int
}

// Status tells what the node knows of itself and others.
func (o orders) Status(_ struct{}, out *Standing) error {
	p := o.p
	p.mu.Lock()
	out.Reserved = p.reserved
	p.mu.Unlock()
	out.Now = p.since()
	for _, a := range p.node.Addrs() {
		out.Addrs = append(out.Addrs, a.String())
	}
	for _, i := range p.node.Peers() {
		out.Known++
		if i.State == p2p.StateNeighbor {
			out.Neighbor++
		}
		out.Peers = append(out.Peers, fmt.Sprintf("%s %s %s %s %v %s %v", i.ID, i.State, i.Path, i.Transport, i.RTT, i.LastError, i.Addrs))
	}
	return nil
}
