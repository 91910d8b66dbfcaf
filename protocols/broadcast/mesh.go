package broadcast

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	// outQueue is how many RPCs wait for one peer. GossipSub drops what does not fit; Publish stops long before that, and
	// the rest is for what a node passes on: some seconds of several authors at their rate.
	outQueue = 4096
	// inQueue is how many messages wait for their signature to be verified. What is in it is bounded by the gate.
	inQueue = 8192
	// seenFor is how long GossipSub itself knows that it has seen a message. The history does the rest.
	seenFor = 30 * time.Second
	// maxSubscribed bounds the topics that are remembered of a peer.
	maxSubscribed = 256
)

// newPubSub starts GossipSub for a bus. Its goroutines end with the bus's context and when the gate is closed.
func newPubSub(b *Bus, m *mesh) (*pubsub.PubSub, error) {
	silent := slog.New(slog.DiscardHandler) // its log is of no use to a person, and has peers' words in it
	params := pubsub.DefaultGossipSubParams()
	params.Connectors = 0 // addresses from strangers are not dialed
	params.HistoryLength, params.HistoryGossip = 10, 6
	params.GossipFactor = 1 // each neighbor outside the mesh, so that one whose only neighbor this is misses nothing
	return pubsub.NewGossipSub(b.ctx, m.gate,
		pubsub.WithLogger(silent),
		pubsub.WithRPCLogger(silent),
		pubsub.WithGossipSubProtocols([]protocol.ID{MeshProtocol(b.cfg.Network)}, supports),
		pubsub.WithGossipSubParams(params),
		pubsub.WithFloodPublish(true), // one's own messages go to every neighbor on the topic
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithMaxMessageSize(MaxMessage+2*overhead),
		pubsub.WithMaxControlMessageSize(MaxMessage),
		pubsub.WithPeerOutboundQueueSize(outQueue),
		pubsub.WithValidateQueueSize(inQueue),
		pubsub.WithSeenMessagesTTL(seenFor),
		pubsub.WithPeerScore(scores()),
		pubsub.WithPeerFilter(b.mayHear),
		pubsub.WithSubscriptionFilter(m.gate.topics),
		pubsub.WithAppSpecificRpcInspector(m.gate.inspect),
		pubsub.WithRawTracer(&tracer{bus: b, mesh: m}),
	)
}

// supports tells what the one protocol has: it is GossipSub 1.2 without peer exchange, since peers are found otherwise.
func supports(f pubsub.GossipSubFeature, _ protocol.ID) bool {
	return f == pubsub.GossipSubFeatureMesh || f == pubsub.GossipSubFeatureIdontwant
}

// mayHear tells whether a peer is told what is published.
func (b *Bus) mayHear(p peer.ID, wire string) bool {
	return b.cfg.Allow(p, strings.TrimPrefix(wire, wireTopic(b.cfg.Network, "")))
}

// scores are GossipSub's scores for small private networks. Only misbehavior counts: invalid messages, and breaking the
// protocol's promises. Peers that share an address are a LAN, a machine or a test, and a peer that says little has
// little to say.
func scores() (*pubsub.PeerScoreParams, *pubsub.PeerScoreThresholds) {
	params := &pubsub.PeerScoreParams{
		AppSpecificScore:          func(peer.ID) float64 { return 0 },
		Topics:                    map[string]*pubsub.TopicScoreParams{},
		BehaviourPenaltyWeight:    -0.1, // a busy machine breaks promises, too
		BehaviourPenaltyThreshold: 6,
		BehaviourPenaltyDecay:     0.9,
		DecayInterval:             time.Second,
		DecayToZero:               0.01,
		RetainScore:               10 * time.Minute,
		SeenMsgTTL:                seenFor,
	}
	return params, &pubsub.PeerScoreThresholds{
		GossipThreshold:   -100,
		PublishThreshold:  -200,
		GraylistThreshold: -400,
		AcceptPXThreshold: 1e9,
	}
}

// topicScores are the scores on one topic: the square of the number of invalid messages, which a minute forgives.
func topicScores() *pubsub.TopicScoreParams {
	return &pubsub.TopicScoreParams{
		SkipAtomicValidation:           true,
		TopicWeight:                    1,
		TimeInMeshQuantum:              time.Second,
		InvalidMessageDeliveriesWeight: -1,
		InvalidMessageDeliveriesDecay:  0.9,
	}
}

func newSubscribed(prefix string, allow func(peer.ID, string) bool) *subscribed {
	return &subscribed{prefix: prefix, allow: allow, topics: map[peer.ID]map[string]bool{}}
}

// subscribed bounds what peers may subscribe to: in number, and to what they may be told. GossipSub's own filter of
// peers is not asked when a node floods what it publishes.
type subscribed struct {
	prefix string
	allow  func(p peer.ID, wire string) bool
	here   func(p peer.ID) bool // whether gone will be called

	mu     sync.Mutex
	topics map[peer.ID]map[string]bool
}

// CanSubscribe implements [pubsub.SubscriptionFilter].
func (s *subscribed) CanSubscribe(topic string) bool { return s.ours(topic) }

func (s *subscribed) ours(topic string) bool {
	name, ok := strings.CutPrefix(topic, s.prefix)
	return ok && CheckTopic(name) == nil
}

// FilterIncomingSubscriptions implements [pubsub.SubscriptionFilter].
func (s *subscribed) FilterIncomingSubscriptions(from peer.ID, news []*pb.RPC_SubOpts) ([]*pb.RPC_SubOpts, error) {
	if len(news) > 2*maxSubscribed {
		return nil, errors.New("broadcast: too many subscriptions at once")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.here(from) { // it left before this was read
		return nil, nil
	}
	has := s.topics[from]
	if has == nil {
		has = map[string]bool{}
		s.topics[from] = has
	}
	var out []*pb.RPC_SubOpts
	for _, n := range news {
		t := n.GetTopicid()
		switch {
		case !s.ours(t):
		case !n.GetSubscribe():
			delete(has, t)
			out = append(out, n)
		case s.allow(from, t) && (has[t] || len(has) < maxSubscribed):
			has[t] = true
			out = append(out, n)
		}
	}
	return out, nil
}

// gone forgets a peer.
func (s *subscribed) gone(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.topics, p)
}
