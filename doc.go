// Package p2p is a node framework on libp2p: write an ordinary gRPC service, and every other node can call it, by peer
// ID or by service name, on a LAN without configuration and across NATs without an open port.
//
//	node := p2p.NewNode(":9388")
//	pb.RegisterGreeterServer(node, greeter{})   // offer a service
//	err := node.StartServer()                   // nodes of the link find each other
//	reply, err := pb.NewGreeterClient(node).SayHello(ctx, req)            // call any node that offers it
//	reply, err = pb.NewGreeterClient(node.Peer(id)).SayHello(ctx, req)    // or one peer
//
// A [Node] is a [grpc.ServiceRegistrar] and a [grpc.ClientConnInterface], so generated code takes it as it is, and all
// of gRPC works: streaming, deadlines, cancellation, metadata, status details, interceptors, health, reflection.
// Connections are authenticated and encrypted by libp2p, over TCP and QUIC; [Caller] tells a handler who calls.
//
// # Lifecycle
//
//	                          before the start        running                 after Close
//	RegisterService           registers               panics                  panics
//	SetServing                kept                    takes effect            no effect
//	JoinNetwork               kept for the start      joins                   ErrClosed
//	StartServer, Run          starts                  ErrStarted              ErrClosed
//	Wait                      ErrNotStarted           blocks until closed     nil, or why the node ended
//	Invoke, NewStream         ErrNotStarted           waits for the service   ErrClosed
//	Peer, Service             usable from the start   usable                  calls fail with ErrClosed
//	NewClient                 ErrNotStarted           a channel of your own   ErrClosed
//	Connect, Pin              ErrNotStarted           done                    ErrClosed
//	Disconnect, Forget        ErrNotStarted           done                    ErrClosed
//	AwaitPeers                ErrNotStarted           blocks                  ErrClosed
//	Peers, PeerEvents         empty                   what is known           empty
//	Instances, Each           ErrNotStarted           as they come            ErrClosed
//	Pinned                    empty                   what is known           empty
//	ID, Addrs, Host           "", nil, nil            those of the node       those it had; Host is closed
//	Close                     closes                  graceful                waits for the first Close
//
// An option or address that is wrong is kept by NewNode and returned by the next JoinNetwork, StartServer, Run or Wait.
// A start that failed is final: it is logged, Wait and each further start return its error at once, and calls fail with
// [ErrNotStarted].
//
// # Waiting
//
// A call to a service or a peer that is not known yet waits for it, at most the discovery timeout (5 s) or its own
// deadline, and then fails with Unavailable and says what was tried. There is no need to sleep, to set WaitForReady or
// to wait for peers before the first call.
//
// # Which instance
//
// Any number of nodes may offer a service. A call goes to one that says that it is serving ([Node.SetServing]), over a
// direct connection rather than a relay, and to each of them in turn; one with much to do passes calls on, and one to
// which calls failed is left alone for a while. The node's own instance is one of them. [Node.Service] narrows the choice,
// by [WithTag] or to the [Nearest]; [Node.Each] calls all. An instance that is closed fails no call; one that dies fails
// those in flight on it, unless they are [Repeatable]. Package grpcstream says exactly what is chosen and what is tried
// again.
//
// # Across NATs
//
// A node starts with the profile [LAN], and contacts nothing beyond its link by itself. With [WAN] it reaches nodes on
// other networks, and is reached there, behind NATs too: it names one or more nodes of your own with the profile [Relay],
// at a public address, which carry its connections until there is a direct one. [PeerInfo] tells which path a peer is
// on and why it is not a better one. Their documentation lists what each profile sets.
//
// # Who may call
//
// In the default profile every node of the same network name that reaches this one may call it; the node says so once at
// its start. [WithAllow] and [WithAllowFile] close it for all but the peers listed, before anything but the handshake;
// [WithAuthorizer] decides each call. [WAN] starts with one of the three or an explicit [WithOpen] only, [Relay] with a
// list or WithOpen only, since an authorizer decides calls and not who is carried. One list governs who may connect, call
// and be relayed; a relay that is named to [WAN] may carry although it is not listed, and call only if it is. Each connection and each call that is refused is a line of the log.
package p2p
