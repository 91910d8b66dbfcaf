package grpcstream

import (
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/lynn9388/p2p/internal/safetext"
)

const (
	// DefaultNetwork is the network name used where none is given.
	DefaultNetwork = "default"

	// StandardProtocol is the protocol ID that other gRPC-over-libp2p programs use for the same plain HTTP/2 stream.
	// A [Server] serves it when [ServerConfig.Standard] is set.
	StandardProtocol protocol.ID = "/libp2p/grpc/1.0.0"

	maxNetworkLen = 64  // a protocol ID goes over the wire with every new stream
	maxServiceLen = 200 // and identify drops messages with very long ones
	maxAnnounced  = 64  // services announced one by one; beyond that one marker stands for all
	maxTags       = 16  // of a node
	maxTagLen     = 64
)

// TunnelProtocol returns the protocol ID of the tunnels of a network, "/p2p/<network>/grpc/1.0.0". An empty name
// means [DefaultNetwork].
func TunnelProtocol(network string) protocol.ID {
	return protocol.ID(networkPrefix(network) + "grpc/1.0.0")
}

// ServiceProtocol returns the protocol ID by which a peer announces that it offers a gRPC service in a network,
// "/p2p/<network>/svc/<service>". It is carried by libp2p's identify; streams opened on it are reset.
func ServiceProtocol(network, service string) protocol.ID {
	return protocol.ID(servicePrefix(network) + service)
}

// manyServices is announced instead of the services when there are more than maxAnnounced.
func manyServices(network string) protocol.ID {
	return protocol.ID(networkPrefix(network) + "svc-many")
}

// announcedService is the reverse of [ServiceProtocol]: the service that a peer announces by pid in the network.
func announcedService(network string, pid protocol.ID) (service string, ok bool) {
	service, ok = strings.CutPrefix(string(pid), servicePrefix(network))
	if !ok || checkService(service) != nil {
		return "", false
	}
	return service, true
}

// TagProtocol returns the protocol ID by which a peer announces one of its tags in a network,
// "/p2p/<network>/tag/<key>=<value>". A tag belongs to the node, and so to all of its services. It is carried by
// libp2p's identify beside the services, so that to choose by tags costs no round trip; streams opened on it are reset.
func TagProtocol(network, tag string) protocol.ID {
	return protocol.ID(tagPrefix(network) + tag)
}

// announcedTag is the reverse of [TagProtocol].
func announcedTag(network string, pid protocol.ID) (tag string, ok bool) {
	tag, ok = strings.CutPrefix(string(pid), tagPrefix(network))
	if !ok || CheckTag(tag) != nil {
		return "", false
	}
	return tag, true
}

// CheckTag reports what is wrong with a tag. Tags are "key=value" of at most 64 bytes in all; both sides consist of one
// or more of the characters A-Z, a-z, 0-9, '.', '_' and '-'.
func CheckTag(tag string) error {
	if len(tag) > maxTagLen {
		return fmt.Errorf("grpcstream: tag %q is longer than %d bytes", safetext.Clean(tag[:maxTagLen])+"…", maxTagLen)
	}
	key, value, _ := strings.Cut(tag, "=")
	if key == "" || value == "" {
		return fmt.Errorf("grpcstream: tag %q: want key=value", safetext.Clean(tag))
	}
	for _, r := range key + value {
		switch {
		case 'A' <= r && r <= 'Z', 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '.', r == '_', r == '-':
		default:
			return fmt.Errorf("grpcstream: tag %q: only A-Z, a-z, 0-9, '.', '_' and '-' are allowed beside one '='", safetext.Clean(tag))
		}
	}
	return nil
}

// checkTags reports what is wrong with the tags of a node or of a selector.
func checkTags(tags []string) error {
	if len(tags) > maxTags {
		return fmt.Errorf("grpcstream: %d tags, at most %d are allowed", len(tags), maxTags)
	}
	for _, t := range tags {
		if err := CheckTag(t); err != nil {
			return err
		}
	}
	return nil
}

// CheckNetwork reports what is wrong with a network name. Names consist of 1 to 64 of the characters a-z, 0-9, '.',
// '_' and '-', so that they are safe in a protocol ID.
func CheckNetwork(name string) error {
	if name == "" {
		return fmt.Errorf("grpcstream: network name is empty")
	}
	if len(name) > maxNetworkLen {
		return fmt.Errorf("grpcstream: network name %q is longer than %d bytes", safetext.Clean(name), maxNetworkLen)
	}
	for _, r := range name {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '.', r == '_', r == '-':
		default:
			return fmt.Errorf("grpcstream: network name %q: only a-z, 0-9, '.', '_' and '-' are allowed", safetext.Clean(name))
		}
	}
	return nil
}

// checkService reports what is wrong with the full name of a gRPC service. gRPC itself is content with any string;
// here it must also fit a protocol ID and a terminal.
func checkService(name string) error {
	if name == "" {
		return fmt.Errorf("grpcstream: service name is empty")
	}
	if len(name) > maxServiceLen {
		return fmt.Errorf("grpcstream: service name %q is longer than %d bytes", safetext.Clean(name), maxServiceLen)
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' || c == '/' || c == '%' {
			return fmt.Errorf("grpcstream: service name %q: only printable ASCII without '/' and '%%' is allowed", safetext.Clean(name))
		}
	}
	return nil
}

// IsSystemService reports whether a service, given by its full name, is one of the nodes' own and none of their users':
// health, reflection and p2p.*. Every node may have it, so it is not announced, and a call to it needs a named peer.
func IsSystemService(name string) bool {
	return strings.HasPrefix(name, "grpc.health.") || strings.HasPrefix(name, "grpc.reflection.") || strings.HasPrefix(name, "p2p.")
}

func networkPrefix(network string) string {
	if network == "" {
		network = DefaultNetwork
	}
	return "/p2p/" + network + "/"
}

func servicePrefix(network string) string { return networkPrefix(network) + "svc/" }

func tagPrefix(network string) string { return networkPrefix(network) + "tag/" }
