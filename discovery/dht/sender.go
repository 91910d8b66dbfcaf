package dht

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio/pbio"

	"github.com/lynn9388/p2p/discovery"
)

const (
	// requestTimeout bounds one question and its answer.
	requestTimeout = 5 * time.Second
	// maxAnswer bounds an answer: bucketSize peers that are closer and store's maxPerKey providers, with their addresses.
	maxAnswer = 1 << 20
	// maxCloser and maxProviders bound the peers that are taken from one answer.
	maxCloser    = 2 * bucketSize
	maxProviders = 2 * MaxFound
)

// errNotMember is why a peer is not asked.
var errNotMember = errors.New("dht: the peer does not speak this network's protocol, or is not allowed")

// A sender asks other nodes, on a stream for each question. It drops addresses from answers that who answered has no
// right to name.
type sender struct {
	d *DHT

	mu     sync.Mutex
	closed bool
	busy   sync.WaitGroup
}

var _ pb.MessageSenderWithDisconnect = (*sender)(nil)

func newSender(d *DHT) *sender { return &sender{d: d} }

func (s *sender) build(corehost.Host, []protocol.ID) pb.MessageSenderWithDisconnect { return s }

// OnDisconnect implements [pb.MessageSenderWithDisconnect]. Nothing is kept of a peer.
func (s *sender) OnDisconnect(context.Context, peer.ID) {}

// SendRequest implements [pb.MessageSender].
func (s *sender) SendRequest(ctx context.Context, p peer.ID, req *pb.Message) (*pb.Message, error) {
	res := new(pb.Message)
	err := s.exchange(ctx, p, req, func(str network.Stream) error {
		return pbio.NewDelimitedReader(str, maxAnswer).ReadMsg(res)
	})
	if err != nil {
		return nil, err
	}
	s.d.bound(p, res)
	s.d.answered(p)
	return res, nil
}

// SendMessage implements [pb.MessageSender]. It returns when the peer has taken the message.
func (s *sender) SendMessage(ctx context.Context, p peer.ID, msg *pb.Message) error {
	return s.exchange(ctx, p, msg, func(str network.Stream) error {
		switch _, err := str.Read(make([]byte, 1)); {
		case err == nil:
			return errors.New("dht: an answer to what is no question")
		case errors.Is(err, io.EOF):
			return nil
		default:
			return err
		}
	})
}

// exchange sends a message on a new stream and has the answer read.
func (s *sender) exchange(ctx context.Context, p peer.ID, msg *pb.Message, read func(network.Stream) error) error {
	if !s.begin() {
		return errClosed
	}
	defer s.busy.Done()
	s.d.visits.use(p)
	defer s.d.visits.done(p)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	defer context.AfterFunc(s.d.ctx, cancel)()
	// The library has connected to whom it asks in a lookup. Whom it only checks may be gone by now: then it is not met.
	str, err := s.open(ctx, p, msg.GetType() == pb.Message_ADD_PROVIDER)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = str.Reset() })
	defer stop()
	if err := s.write(str, p, msg); err != nil {
		_ = str.Reset()
		return err
	}
	if err := read(str); err != nil {
		_ = str.Reset()
		return err
	}
	return str.Close()
}

func (s *sender) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.busy.Add(1)
	return true
}

// open opens a stream to a member.
func (s *sender) open(ctx context.Context, p peer.ID, dial bool) (network.Stream, error) {
	if dial {
		if err := s.d.connect(ctx, p); err != nil {
			return nil, err
		}
	}
	str, err := s.d.host.NewStream(network.WithNoDial(ctx, "dht"), p, s.d.proto) // waits for identify
	if err != nil {
		return nil, err
	}
	if !s.d.member(p) {
		_ = str.Reset()
		return nil, errNotMember
	}
	return str, nil
}

// write sends a message, and of one that names this node's addresses only those that are of use to p.
func (s *sender) write(str network.Stream, p peer.ID, msg *pb.Message) error {
	_ = str.SetDeadline(time.Now().Add(requestTimeout))
	if msg.GetType() == pb.Message_ADD_PROVIDER {
		// Which relays it has is this node's own choice, and that it keeps to its link says nothing of what p may know.
		of := discovery.Origin{Scope: discovery.ScopeTo(s.d.host.Network(), p), Relay: func(peer.ID) bool { return true }}
		own := of.Accepted(s.d.host.ID(), s.d.host.Addrs())
		if len(own) == 0 {
			return fmt.Errorf("dht: no address of this node is of use to %s", p)
		}
		msg.ProviderPeers = pb.RawPeerInfosToPBPeers([]peer.AddrInfo{{ID: s.d.host.ID(), Addrs: own}})
	}
	if err := pbio.NewDelimitedWriter(str).WriteMsg(msg); err != nil {
		return err
	}
	return str.CloseWrite()
}

// wait refuses what comes and waits for what is under way. The DHT's context has ended.
func (s *sender) wait() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.busy.Wait()
}

// bound cuts an answer of p to what is taken from one.
func (d *DHT) bound(p peer.ID, res *pb.Message) {
	from := d.cfg.Origin(p)
	res.CloserPeers = d.boundPeers(from, res.GetCloserPeers(), maxCloser)
	res.ProviderPeers = d.boundPeers(from, res.GetProviderPeers(), maxProviders)
}

// boundPeers returns at most limit of the peers, those that are allowed, with the addresses that from may name.
func (d *DHT) boundPeers(from discovery.Origin, peers []*pb.Message_Peer, limit int) []*pb.Message_Peer {
	var out []*pb.Message_Peer
	for _, m := range peers[:min(len(peers), limit)] {
		info := pb.PBPeerToPeerInfo(m)
		if info.ID.Validate() != nil || info.ID != d.host.ID() && !d.allowed(info.ID) {
			continue
		}
		info.Addrs = from.Accepted(info.ID, info.Addrs)
		bounded := pb.RawPeerInfosToPBPeers([]peer.AddrInfo{info})[0]
		bounded.Connection = m.GetConnection()
		out = append(out, bounded)
	}
	return out
}
