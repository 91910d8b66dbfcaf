package nodeinfo

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lynn9388/p2p/internal/places"
)

// Register offers NodeInfoService on r, answered from node. Like every registration it must come before the server is
// started. Who may call is for the server to decide.
func Register(r grpc.ServiceRegistrar, node Node) {
	RegisterNodeInfoServiceServer(r, newServer(node))
}

// A server answers from a Node.
type server struct {
	UnimplementedNodeInfoServiceServer
	node    Node
	watches places.Places
}

func newServer(node Node) *server {
	return &server{node: node, watches: places.Places{All: maxAllWatches, Each: maxWatches}}
}

func (*server) Ping(_ context.Context, req *PingRequest) (*PingResponse, error) {
	if n := len(req.GetPayload()); n > MaxPayload {
		return nil, status.Errorf(codes.InvalidArgument, "nodeinfo: a ping carries at most %d bytes, not %d", MaxPayload, n)
	}
	return &PingResponse{Payload: req.GetPayload()}, nil
}

func (s *server) Info(context.Context, *InfoRequest) (*InfoResponse, error) {
	info := s.node.Info()
	res := &InfoResponse{Name: cut(info.Name), Version: cut(info.Version)}
	if !info.Start.IsZero() {
		res.StartTime = timestamppb.New(info.Start)
	}
	for _, a := range info.Addrs[:min(len(info.Addrs), MaxAddrs)] {
		res.Addresses = append(res.Addresses, a.String())
	}
	return res, nil
}

func (s *server) Services(context.Context, *ServicesRequest) (*ServicesResponse, error) {
	infos := s.node.GetServiceInfo()
	res := &ServicesResponse{}
	for _, name := range slices.Sorted(maps.Keys(infos)) {
		if len(res.Services) == MaxServices {
			break
		}
		if !validName(name) {
			continue
		}
		res.Services = append(res.Services, &Service{Name: name, Methods: methods(infos[name].Methods)})
	}
	return res, nil
}

func methods(infos []grpc.MethodInfo) []*Method {
	var out []*Method
	for _, m := range infos {
		if validName(m.Name) && len(out) < MaxMethods {
			out = append(out, &Method{Name: m.Name, ClientStreaming: m.IsClientStream, ServerStreaming: m.IsServerStream})
		}
	}
	slices.SortFunc(out, func(a, b *Method) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return out
}

// cut returns s as valid UTF-8 of at most MaxText bytes.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "")
	if len(s) <= MaxText {
		return s
	}
	n := MaxText
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// validName tells whether s can be the name of a service or method: printable ASCII without a slash.
func validName(s string) bool {
	return s != "" && len(s) <= MaxText && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || r == '/'
	})
}
