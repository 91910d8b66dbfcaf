// Package grpcstream carries gRPC over libp2p streams. It works with any libp2p host.
//
// A tunnel is one libp2p stream that carries one HTTP/2 connection, on which many RPCs run side by side. Everything
// that gRPC can do works unchanged: the four kinds of call, deadlines, metadata, interceptors, retries, health,
// reflection. What libp2p adds is identity: the other end of a tunnel is the peer whose key the secure channel
// proved, and a handler asks for it by [PeerFromContext]. Nothing is believed because a metadata header says so.
//
// # Serving
//
// [NewServer] makes a [Server]: a [google.golang.org/grpc.ServiceRegistrar] that limits what one peer may take,
// decides every call in one place ([ServerConfig.Authorize]), and announces each service to the connected peers as a
// protocol ID ([ServiceProtocol]).
//
//	s := grpcstream.NewServer(grpcstream.ServerConfig{})
//	pb.RegisterGreeterServer(s, greeter{})
//	if err := s.Start(h); err != nil { … }
//	defer s.Shutdown(ctx)
//
// # Calling
//
// NewChannel makes the one channel a node needs: it calls services by name or by peer, over one tunnel to each.
//
// # The parts
//
// The parts work on their own with an ordinary [google.golang.org/grpc.Server] or
// [google.golang.org/grpc.ClientConn]: [Listen] and [Dial] give connections, [NewCredentials] tells both ends who the
// other is, and [NewConn] makes a net.Conn of a stream that you opened yourself.
package grpcstream
