package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/safetext"
	"github.com/lynn9388/p2p/protocols/nodeinfo"
)

// askTimeout bounds what a peer is asked on the way to an answer; a peer that stays silent is told apart from one that
// is gone.
const askTimeout = 10 * time.Second

// Status implements ControlServiceServer.
func (s *Server) Status(context.Context, *StatusRequest) (*StatusResponse, error) {
	c := s.cfg
	res := &StatusResponse{
		Id: c.Node.ID().String(), Name: c.Name, Version: c.Version, Network: c.Network, Home: c.Home,
		Share: c.Share(), Access: c.Access(), StartTime: timestamppb.New(c.Started), Diagnosis: c.Diagnose(),
		Addrs: texts(c.Node.Addrs()), Profile: c.Profile,
	}
	if c.Profile != "lan" {
		res.Reachability = s.reachability()
	}
	for _, p := range s.others() {
		res.Known++
		switch p.State {
		case p2p.StateNeighbor:
			res.Neighbors++
			res.Connected++
		case p2p.StateConnected:
			res.Connected++
		case p2p.StateKnown, p2p.StateConnecting:
		}
	}
	return res, nil
}

// others returns the known peers without the node itself.
func (s *Server) others() []p2p.PeerInfo {
	self := s.cfg.Node.ID()
	return slices.DeleteFunc(s.cfg.Node.Peers(), func(p p2p.PeerInfo) bool { return p.ID == self })
}

// ListPeers implements ControlServiceServer.
func (s *Server) ListPeers(_ context.Context, req *ListPeersRequest) (*ListPeersResponse, error) {
	res := &ListPeersResponse{}
	var relays []*Sender
	for _, p := range s.others() {
		if !req.GetNeighborsOnly() || p.State == p2p.StateNeighbor {
			out := peerOf(p)
			res.Peers = append(res.Peers, out)
			relays = append(relays, out.GetRelay())
		}
	}
	s.name(relays...)
	return res, nil
}

// WatchPeers implements ControlServiceServer.
func (s *Server) WatchPeers(req *WatchPeersRequest, stream grpc.ServerStreamingServer[WatchPeersResponse]) error {
	ctx, cancel := s.untilClosing(stream.Context())
	defer cancel()
	events := s.cfg.Node.PeerEvents(ctx) // before the list, so that nothing falls between
	list, err := s.ListPeers(ctx, &ListPeersRequest{NeighborsOnly: req.GetNeighborsOnly()})
	if err != nil {
		return err
	}
	now := timestamppb.Now()
	for _, p := range list.GetPeers() {
		if err := stream.Send(&WatchPeersResponse{Peer: p, Time: now}); err != nil {
			return err
		}
	}
	if err := stream.Send(&WatchPeersResponse{Time: now}); err != nil {
		return err
	}
	for e := range events {
		if req.GetNeighborsOnly() && e.Kind != p2p.PeerJoined && e.Kind != p2p.PeerLeft {
			continue
		}
		if err := stream.Send(s.event(e)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) event(e p2p.PeerEvent) *WatchPeersResponse {
	res := &WatchPeersResponse{Kind: string(e.Kind), Peer: s.peer(e.Peer), Service: e.Service, Time: timestamppb.New(e.Time)}
	if e.Err != nil {
		res.Error = safetext.Clean(e.Err.Error())
	}
	return res
}

// GetPeer implements ControlServiceServer.
func (s *Server) GetPeer(ctx context.Context, req *GetPeerRequest) (*GetPeerResponse, error) {
	t, err := s.resolve(req.GetTarget())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	info, err := nodeinfo.Get(ctx, s.cfg.Node.Peer(t.dial))
	known := s.info(t.id)
	res := &GetPeerResponse{Peer: s.peer(known), Answered: err == nil, Attempts: attemptsOf(known.Attempts)}
	if err != nil {
		res.Error = safetext.Clean(plain(err).Error())
		return res, nil
	}
	if !info.Start.IsZero() {
		res.StartTime = timestamppb.New(info.Start)
	}
	if res.Peer.Name == "" {
		res.Peer.Name = info.Name
	}
	if res.Peer.Version == "" {
		res.Peer.Version = info.Version
	}
	return res, nil
}

// find describes a peer, known or not.
func (s *Server) find(id peer.ID) *Peer { return s.peer(s.info(id)) }

// info is what the node knows of a peer, known or not.
func (s *Server) info(id peer.ID) p2p.PeerInfo {
	for _, p := range s.cfg.Node.Peers() {
		if p.ID == id {
			return p
		}
	}
	return p2p.PeerInfo{ID: id}
}

// Connect implements ControlServiceServer.
func (s *Server) Connect(ctx context.Context, req *ConnectRequest) (*ConnectResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	t, err := s.place(ctx, req.GetTarget())
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Node.Connect(ctx, t.dial); err != nil {
		return nil, plain(err)
	}
	rtt, err := nodeinfo.Ping(ctx, s.cfg.Node.Peer(t.dial))
	if err != nil {
		return nil, plain(err)
	}
	return &ConnectResponse{Peer: s.find(t.id), Rtt: durationpb.New(rtt)}, nil
}

// place is resolve that also takes host:port: whoever answers there now.
func (s *Server) place(ctx context.Context, name string) (target, error) {
	if _, _, err := addr.SplitHostPort(name); err != nil {
		return s.resolve(name)
	}
	info, err := addr.ParseJoin(name)
	if err != nil || info.ID != "" {
		return s.resolve(name)
	}
	var errs []error
	for _, a := range info.Addrs {
		id, err := host.Identify(ctx, s.cfg.Node.Host(), a)
		if err == nil {
			return target{id: id, dial: id.String() + "@" + name}, nil
		}
		if errors.Is(err, host.ErrSelf) {
			return target{}, status.Errorf(codes.InvalidArgument, "%s is this node itself", name)
		}
		errs = append(errs, err)
	}
	return target{}, plain(fmt.Errorf("no node answered at %s: %w", name, errors.Join(errs...)))
}

// Disconnect implements ControlServiceServer.
func (s *Server) Disconnect(_ context.Context, req *DisconnectRequest) (*DisconnectResponse, error) {
	t, err := s.resolve(req.GetTarget())
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Node.Disconnect(t.id.String()); err != nil {
		return nil, plain(err)
	}
	return &DisconnectResponse{Id: t.id.String()}, nil
}

// Forget implements ControlServiceServer.
func (s *Server) Forget(_ context.Context, req *ForgetRequest) (*ForgetResponse, error) {
	t, err := s.resolve(req.GetTarget())
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Node.Forget(t.id.String()); err != nil {
		return nil, plain(err)
	}
	return &ForgetResponse{Id: t.id.String()}, nil
}

// PinName implements ControlServiceServer.
func (s *Server) PinName(_ context.Context, req *PinNameRequest) (*PinNameResponse, error) {
	t, err := s.resolve(req.GetTarget())
	if err != nil {
		return nil, err
	}
	name := req.GetName()
	s.pinning.Lock() // of two that want one name, the second is told
	defer s.pinning.Unlock()
	if old, ok := s.cfg.Node.Pinned(name); ok && old != t.id && !req.GetReplace() {
		return nil, status.Errorf(codes.AlreadyExists, "%q is pinned to %s, not to %s: if that is meant to change, add --replace", name, old, t.id)
	}
	if err := s.cfg.Node.Pin(name, t.id.String()); err != nil {
		return nil, plain(err)
	}
	return &PinNameResponse{Id: t.id.String()}, nil
}

// Ping implements ControlServiceServer.
func (s *Server) Ping(ctx context.Context, req *PingRequest) (*PingResponse, error) {
	t, err := s.resolve(req.GetTarget())
	if err != nil {
		return nil, err
	}
	taken := pathTaken{ClientConnInterface: s.cfg.Node.Peer(t.dial)}
	rtt, err := nodeinfo.Ping(ctx, &taken)
	if err != nil {
		return nil, plain(err)
	}
	at := taken.path()
	res := &PingResponse{Id: t.id.String(), Rtt: durationpb.New(rtt), Path: string(at.Path), Transport: at.Transport, Relay: relaySender(at.Relay)}
	s.name(res.GetRelay())
	return res, nil
}

// pathTaken is a connection that knows which path its last call took: the best one may be another by now.
type pathTaken struct {
	grpc.ClientConnInterface
	peer grpcpeer.Peer
}

// Invoke implements [grpc.ClientConnInterface].
func (p *pathTaken) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return p.ClientConnInterface.Invoke(ctx, method, args, reply, append(opts, grpc.Peer(&p.peer))...)
}

func (p *pathTaken) path() grpcstream.Peer {
	info, _ := p.peer.AuthInfo.(grpcstream.AuthInfo)
	return info.Peer
}

// peer puts what is known of a peer into its message.
func (s *Server) peer(p p2p.PeerInfo) *Peer {
	out := peerOf(p)
	s.name(out.GetRelay())
	return out
}

// peerOf is peer without the name of a relay.
func peerOf(p p2p.PeerInfo) *Peer {
	return &Peer{
		Id: p.ID.String(), Name: p.Name, PinnedName: p.Pinned, State: string(p.State),
		Path: p.Path, Transport: p.Transport, Services: p.Services, Source: p.Source, Version: p.Version, LastError: p.LastError,
		Addrs: texts(p.Addrs), Rtt: lengthOf(p.RTT), Since: momentOf(p.Since), PathSince: momentOf(p.PathSince), NotDirect: p.NotDirect,
		Relay: relaySender(p.Relay),
	}
}

// plain makes a status of an error, with the peer's status if there is one.
func plain(err error) error {
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	return status.Error(codes.Unavailable, err.Error())
}
