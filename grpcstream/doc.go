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
// # Choosing
//
// A [Channel] knows the instances of a service from libp2p's identify, with their tags, and while it knows none it has
// them looked for ([ChannelConfig.Find]). Among them, or those that a [Selector] tells, it chooses for each call:
//
//   - one that says that it is serving. Each instance of a service that is called is asked once for each tunnel, by a
//     Watch of grpc.health.v1; what it says counts from the moment it arrives. One that does not speak of the service,
//     or refuses to, is taken for serving; one that has just been connected gets no call before it has answered, or for a second;
//   - over a direct connection if there is any, else over a relay at once: see "Paths";
//   - not one that was set aside. After three calls in a row that ended with Unavailable, or with nothing heard until
//     their deadline, a peer passes its turns on for 1 s, doubled each time up to 30 s, then gets one call to try. At most
//     half of those that could take a call are set aside;
//   - of these each in its turn, or the nearest. One with 16 or more calls in flight, and twice as many as the one with
//     the fewest, or with 100, lets that one take the call; the nearest does so at 100.
//
// The host's own instance is one of them, called in memory. Peers are connected as calls need them. A call to a named
// peer goes there, whatever its health.
//
// # Paths
//
// A call to a peer goes over a direct connection or over a relay, and both ends know which: [Peer] tells the path, the
// relay, and since when it is so. No call waits for a direct connection. When one is there and has lasted for 250 ms, new
// calls take it; unary calls under way end where they are, and streams may go on over the relay for
// [ChannelConfig.MoveGrace]. Then they end with the reason PATH_MOVED, and the relay is free. When the direct connection
// is lost, calls go over the relay again. What a relay refuses, and its limits, are errors that name them: RELAY_REFUSED,
// RELAY_LIMIT.
//
// A stream that must not end with its connection is made with [Resumable].
//
// # What is tried again
//
// A call that no instance has got is held, and goes to another one, as long as the discovery timeout and its deadline
// allow: while nobody is known or connected, when a dial fails, and when a tunnel is gone by the time the call is put on
// it; a dial that is under way then, and the question about health after it, are waited for, which end within seconds.
// The same holds, once, for a call that an instance refused unseen: one that came when it was about to leave. So an
// instance that leaves by [Server.Shutdown] fails no call: it withdraws its announcement, says that it is not serving,
// ends its tunnels for new calls, and lets those under way end.
//
// A call that an instance may have got is not made again by itself: those in flight on an instance that dies fail with
// Unavailable. Two things change that. [Repeatable] has one call made again, at most twice and on instances not yet
// tried, after Unavailable from whatever source: a unary call, or a stream of answers to one request before the first of
// them. A retryPolicy in [ChannelConfig.ServiceConfig] does it for whole methods, by gRPC's rules. No other error is
// tried again, neither DeadlineExceeded nor ResourceExhausted.
//
// # The parts
//
// The parts work on their own with an ordinary [google.golang.org/grpc.Server] or
// [google.golang.org/grpc.ClientConn]: [Listen] and [Dial] give connections, [NewCredentials] tells both ends who the
// other is, and [NewConn] makes a net.Conn of a stream that you opened yourself.
package grpcstream
