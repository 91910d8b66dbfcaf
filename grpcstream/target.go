package grpcstream

import (
	"fmt"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/safetext"
)

// Scheme is the scheme of this package's targets: "libp2p:///<target>".
const Scheme = "libp2p"

// parsePeer reads a target that is a peer: ID, ID@host:port or a multiaddr that ends in /p2p/ID.
func parsePeer(target string) (*selector, error) {
	info, err := addr.ParsePeer(trimScheme(target))
	if err != nil {
		return nil, badTarget(err)
	}
	return &selector{peer: info.ID, addrs: info.Addrs}, nil
}

// parseTarget reads a target that is a peer or a service's name.
func parseTarget(target string) (*selector, error) {
	t := trimScheme(target)
	s, err := parsePeer(t)
	if err == nil {
		return s, nil
	}
	if strings.ContainsAny(t, "/@:") {
		return nil, err // meant to be an address
	}
	if cerr := checkService(t); cerr != nil {
		return nil, badTarget(cerr)
	}
	return &selector{service: t}, nil
}

// trimScheme takes the scheme off a target, in each way it may be written: libp2p:///x, libp2p://x, libp2p:x.
func trimScheme(target string) string {
	rest, ok := strings.CutPrefix(target, Scheme+":")
	if !ok {
		return target
	}
	if r, ok := strings.CutPrefix(rest, "//"); ok {
		rest = r
		if r, ok := strings.CutPrefix(rest, "/"); ok {
			rest = r
		}
	}
	if un, err := url.PathUnescape(rest); err == nil {
		rest = un
	}
	if !strings.HasPrefix(rest, "/") && strings.Contains(rest, "/p2p/") {
		rest = "/" + rest // libp2p:///ip4/…
	}
	return rest
}

// badTarget is the error of a target that cannot be read.
func badTarget(err error) error {
	return &Error{
		Code:    codes.InvalidArgument,
		Reason:  ReasonBadTarget,
		Message: fmt.Sprintf("bad target: %s", safetext.Clean(err.Error())),
		Remedy:  "name a peer as ID, ID@host:port or multiaddr, or a service by its full name",
		Err:     err,
	}
}
