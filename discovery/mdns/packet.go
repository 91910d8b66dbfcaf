package mdns

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/lynn9388/p2p/internal/addr"
)

const (
	// serviceType is the DNS-SD service type under which nodes announce themselves (RFC 6763, section 7).
	serviceType = "_lynn9388-p2p._udp.local."
	// recordTTL is how long a record that was heard counts, in seconds and as a duration (RFC 6762, section 10).
	recordTTL = 600
	// maxPacket keeps packets within one frame on every link, also behind tunnels: the least that IPv6 guarantees is
	// 1280 bytes with headers.
	maxPacket = 1200
	// maxRecords, maxInstances and maxAddrs bound what is read of one packet, and maxLabel the name of an instance.
	maxRecords, maxInstances, maxAddrs, maxLabel = 128, 8, 16, 40

	addrPrefix, netPrefix = "dnsaddr=", "net="
	cacheFlush            = dnsmessage.Class(1 << 15) // RFC 6762, section 10.2
)

// names holds the DNS names of one network.
type names struct {
	tag     string          // what stands for the network's name in records
	service dnsmessage.Name // all nodes
	network dnsmessage.Name // the nodes of this network: a subtype (RFC 6763, section 7.1)
}

func newNames(network string) names {
	sum := sha256.Sum256([]byte("lynn9388-p2p network " + network))
	tag := hex.EncodeToString(sum[:6])
	return names{
		tag:     tag,
		service: dnsmessage.MustNewName(serviceType),
		network: dnsmessage.MustNewName("_" + tag + "._sub." + serviceType),
	}
}

// A message is what one packet says to the nodes of a network.
type message struct {
	asks  bool        // it asks who is there
	known []string    // the instances that the asker knows; they need not answer
	found []announced // the instances that it tells about
	gone  []string    // the instances that say goodbye
}

func (m *message) empty() bool { return !m.asks && len(m.found) == 0 && len(m.gone) == 0 }

// An announced instance is one run of a node, as one packet tells it.
type announced struct {
	instance string
	info     peer.AddrInfo
}

// packQuery returns the packet that asks for the network's nodes, naming as many of those known as it can hold.
func (n names) packQuery(known []string) ([]byte, error) {
	b := dnsmessage.NewBuilder(make([]byte, 0, maxPacket), dnsmessage.Header{})
	b.EnableCompression()
	err := b.StartQuestions()
	if err == nil {
		err = b.Question(dnsmessage.Question{Name: n.network, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET})
	}
	if err == nil {
		err = b.StartAnswers()
	}
	if err != nil {
		return nil, err
	}
	size := 12 + len(n.network.String()) + 5
	for _, instance := range known {
		if size += len(instance) + 16; size > maxPacket {
			break
		}
		if err := n.ptr(&b, n.network, instance, recordTTL); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// packAnswer returns the packet that announces an instance at addrs, and how many of them did not fit; goodbye makes
// it the one that takes the announcement back.
func (n names) packAnswer(instance string, id peer.ID, addrs []ma.Multiaddr, goodbye bool) (packet []byte, left int, err error) {
	ttl := uint32(recordTTL)
	if goodbye {
		ttl = 0
	}
	b := dnsmessage.NewBuilder(make([]byte, 0, maxPacket), dnsmessage.Header{Response: true, Authoritative: true})
	b.EnableCompression()
	if err := b.StartAnswers(); err != nil {
		return nil, 0, err
	}
	for _, owner := range []dnsmessage.Name{n.service, n.network} {
		if err := n.ptr(&b, owner, instance, ttl); err != nil {
			return nil, 0, err
		}
	}
	if !goodbye {
		name, err := dnsmessage.NewName(instance + "." + serviceType)
		if err != nil {
			return nil, 0, err
		}
		txt, skipped := n.txt(id, addrs)
		left = skipped
		if err := b.StartAdditionals(); err != nil {
			return nil, 0, err
		}
		h := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET | cacheFlush, TTL: ttl}
		if err := b.TXTResource(h, dnsmessage.TXTResource{TXT: txt}); err != nil {
			return nil, 0, err
		}
	}
	packet, err = b.Finish()
	return packet, left, err
}

func (n names) ptr(b *dnsmessage.Builder, owner dnsmessage.Name, instance string, ttl uint32) error {
	name, err := dnsmessage.NewName(instance + "." + serviceType)
	if err != nil {
		return fmt.Errorf("instance %q: %w", instance, err)
	}
	h := dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET, TTL: ttl}
	return b.PTRResource(h, dnsmessage.PTRResource{PTR: name})
}

// txt returns the strings of the TXT record, and how many addresses there was no room for.
func (n names) txt(id peer.ID, addrs []ma.Multiaddr) (txt []string, left int) {
	txt = []string{netPrefix + n.tag}
	size := 256 // the header, the names and the network's tag
	for _, a := range addrs {
		s := addrPrefix + a.String() + "/p2p/" + id.String()
		if len(s) > 255 || size+len(s)+1 > maxPacket || len(txt) > maxAddrs {
			left++
			continue
		}
		size += len(s) + 1
		txt = append(txt, s)
	}
	return txt, left
}

var errNotOurs = errors.New("mdns: not a packet of this network's nodes")

// parse reads a packet. What is not of this network is left out; a packet with nothing left is errNotOurs, as is one
// that cannot be read.
func (n names) parse(packet []byte) (message, error) {
	var p dnsmessage.Parser
	header, err := p.Start(packet)
	if err != nil || header.OpCode != 0 || header.RCode != dnsmessage.RCodeSuccess || header.Truncated && header.Response {
		return message{}, errNotOurs
	}
	var m message
	if asks, err := n.parseQuestions(&p); err != nil {
		return message{}, errNotOurs
	} else if !header.Response {
		m.asks = asks
	}
	r := reader{names: n, texts: map[string][]string{}}
	if r.section(&p, p.AnswerHeader, p.SkipAnswer) == nil && p.SkipAllAuthorities() == nil {
		_ = r.section(&p, p.AdditionalHeader, p.SkipAdditional) // what was read before a broken record counts
	}
	switch {
	case !header.Response:
		m.known = r.here
	default:
		m.gone = r.gone
		for _, instance := range r.here {
			if info, ok := n.parseTXT(r.texts[instance]); ok {
				m.found = append(m.found, announced{instance: instance, info: info})
			}
		}
	}
	if m.empty() {
		return message{}, errNotOurs
	}
	return m, nil
}

func (n names) parseQuestions(p *dnsmessage.Parser) (asks bool, err error) {
	for range maxRecords {
		q, err := p.Question()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return asks, nil
		}
		if err != nil {
			return false, err
		}
		if (q.Type == dnsmessage.TypePTR || q.Type == dnsmessage.TypeALL) && n.ours(q.Name) {
			asks = true
		}
	}
	return false, errNotOurs
}

// ours tells whether a name stands for all nodes of the network.
func (n names) ours(name dnsmessage.Name) bool {
	s := name.String()
	return strings.EqualFold(s, serviceType) || strings.EqualFold(s, n.network.String())
}

// A reader collects the records of a packet that belong to our service type.
type reader struct {
	names names
	left  int // records read
	here  []string
	gone  []string
	texts map[string][]string
}

func (r *reader) section(p *dnsmessage.Parser, next func() (dnsmessage.ResourceHeader, error), skip func() error) error {
	for ; r.left < maxRecords; r.left++ {
		h, err := next()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case h.Type == dnsmessage.TypePTR && r.names.ours(h.Name):
			ptr, err := p.PTRResource()
			if err != nil {
				return err
			}
			r.add(ptr.PTR, h.TTL)
		case h.Type == dnsmessage.TypeTXT:
			txt, err := p.TXTResource()
			if err != nil {
				return err
			}
			if instance, ok := instanceOf(h.Name); ok && len(r.texts) < maxInstances {
				r.texts[instance] = txt.TXT
			}
		default:
			if err := skip(); err != nil {
				return err
			}
		}
	}
	return errNotOurs
}

func (r *reader) add(name dnsmessage.Name, ttl uint32) {
	instance, ok := instanceOf(name)
	if !ok {
		return
	}
	list := &r.here
	if ttl == 0 {
		list = &r.gone
	}
	if len(*list) < maxRecords && !slices.Contains(*list, instance) {
		*list = append(*list, instance)
	}
}

// instanceOf returns the first label of an instance's name. A label that no node of ours would make is refused.
func instanceOf(name dnsmessage.Name) (string, bool) {
	s := strings.ToLower(name.String())
	label, ok := strings.CutSuffix(s, "."+serviceType)
	if !ok || label == "" || len(label) > maxLabel {
		return "", false
	}
	for _, c := range []byte(label) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return "", false
		}
	}
	return label, true
}

// parseTXT reads the strings of a TXT record: false unless they are of this network and name one peer with at least
// one address that could be dialed.
func (n names) parseTXT(txt []string) (peer.AddrInfo, bool) {
	var info peer.AddrInfo
	if !slices.Contains(txt, netPrefix+n.tag) {
		return info, false
	}
	for _, s := range txt {
		v, ok := strings.CutPrefix(s, addrPrefix)
		if !ok || len(info.Addrs) == maxAddrs {
			continue
		}
		one, err := peer.AddrInfoFromString(v)
		if err != nil || len(one.Addrs) != 1 || !direct(one.Addrs[0]) {
			continue
		}
		if info.ID != "" && info.ID != one.ID {
			return peer.AddrInfo{}, false
		}
		info.ID = one.ID
		info.Addrs = append(info.Addrs, one.Addrs[0])
	}
	return info, len(info.Addrs) > 0
}

// direct tells whether an address names a host itself: by its IP address, and not by way of a relay.
func direct(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err != nil && addr.ScopeOf(a) != addr.Unusable
}
