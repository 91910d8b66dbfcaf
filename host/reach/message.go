package reach

import (
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"github.com/lynn9388/p2p/host/reach/internal/wire"
)

// maxMessage bounds a message of the exchange: 16 addresses of at most 24 bytes and little else.
const maxMessage = 1024

// offer is a wire.Offer that was read, or is to be sent.
type offer struct {
	addrs, nearby []ma.Multiaddr
	public        bool
	udp, tcp      Mapping
	refusal       wire.Refusal
	held          time.Duration // how long the answer was held back
}

// symmetric tells whether the offer's addresses are of no use to others, as far as is known.
func (o offer) symmetric() bool {
	return o.udp == MappingSymmetric || o.udp == MappingUnknown && o.tcp == MappingSymmetric
}

// untold tells whether the NAT in front may be symmetric without anybody knowing.
func (o offer) untold() bool {
	return len(o.addrs) > 0 && !o.public && (o.udp == MappingUnknown || o.udp == MappingSomeNAT) && (o.tcp == MappingUnknown || o.tcp == MappingSomeNAT)
}

// wire returns the offer as it is sent.
func (o offer) wire() *wire.Offer {
	return &wire.Offer{
		Addrs: toBytes(o.addrs), Nearby: toBytes(o.nearby), Public: o.public,
		Udp: wireMapping(o.udp), Tcp: wireMapping(o.tcp), Refusal: o.refusal, HeldMs: uint32(o.held.Milliseconds()),
	}
}

func wireMapping(m Mapping) wire.Mapping {
	switch m {
	case MappingNone, MappingIndependent:
		return wire.Mapping_MAPPING_INDEPENDENT
	case MappingSymmetric:
		return wire.Mapping_MAPPING_SYMMETRIC
	default:
		return wire.Mapping_MAPPING_UNSPECIFIED
	}
}

func mappingOf(w wire.Mapping) Mapping {
	switch w {
	case wire.Mapping_MAPPING_INDEPENDENT:
		return MappingIndependent
	case wire.Mapping_MAPPING_SYMMETRIC:
		return MappingSymmetric
	default:
		return MappingUnknown
	}
}

// channel reads and writes the messages of one exchange.
type channel struct {
	r pbio.ReadCloser
	w pbio.WriteCloser
}

func newChannel(s io.ReadWriter) channel {
	return channel{pbio.NewDelimitedReader(s, maxMessage), pbio.NewDelimitedWriter(s)}
}

func (c channel) send(m proto.Message) error { return c.w.WriteMsg(m) }

func (c channel) readOffer() (offer, error) {
	var w wire.Offer
	if err := c.r.ReadMsg(&w); err != nil {
		return offer{}, err
	}
	if len(w.GetAddrs()) > maxAddrs || len(w.GetNearby()) > maxAddrs {
		return offer{}, fmt.Errorf("the peer offers more than %d addresses", maxAddrs)
	}
	return offer{
		addrs: fromBytes(w.GetAddrs()), nearby: fromBytes(w.GetNearby()), public: w.GetPublic(),
		udp: mappingOf(w.GetUdp()), tcp: mappingOf(w.GetTcp()), refusal: w.GetRefusal(),
		held: time.Duration(w.GetHeldMs()) * time.Millisecond,
	}, nil
}

// readStart returns the role of this side and the peer's nearby addresses.
func (c channel) readStart() (Role, []ma.Multiaddr, error) {
	var w wire.Start
	if err := c.r.ReadMsg(&w); err != nil {
		return "", nil, err
	}
	if len(w.GetNearby()) > maxAddrs {
		return "", nil, fmt.Errorf("the peer offers more than %d addresses", maxAddrs)
	}
	role := RoleServer
	if w.GetClient() {
		role = RoleClient
	}
	return role, fromBytes(w.GetNearby()), nil
}

func toBytes(addrs []ma.Multiaddr) [][]byte {
	var out [][]byte
	for _, a := range addrs {
		out = append(out, a.Bytes())
	}
	return out
}

// fromBytes leaves out what is no multiaddr: a later version may know more kinds.
func fromBytes(in [][]byte) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, b := range in {
		if a, err := ma.NewMultiaddrBytes(b); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// roleOf returns the part of the side that began the exchange, whose offer is mine.
//
// A side that knows no address of its own is the client, as the other has nothing to dial. So is a symmetric one: only it knows the port that its dials leave from, so nobody gets
// through to it. Next, the client is the side that is not public, since the other is known to be reached. Otherwise the parts are swapped from
// one try to the next, so that what none of the two knows about itself is tried both ways.
func roleOf(mine, theirs offer, try int) Role {
	clientIf := func(client bool) Role {
		if client {
			return RoleClient
		}
		return RoleServer
	}
	switch {
	case (len(mine.addrs) == 0) != (len(theirs.addrs) == 0):
		return clientIf(len(mine.addrs) == 0)
	case mine.symmetric() != theirs.symmetric():
		return clientIf(mine.symmetric())
	case mine.public != theirs.public:
		return clientIf(theirs.public)
	default:
		return clientIf(try%2 == 0)
	}
}
