package grpcstream

import (
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // so that compressed requests are understood
	"google.golang.org/grpc/keepalive"
)

const (
	defaultMaxCallsPerPeer   = 1000
	defaultMaxCalls          = 5000
	defaultMaxTunnelsPerPeer = 16
	defaultBusyWait          = time.Second
	defaultMaxMessageSize    = 4 << 20
	defaultMaxHeaderSize     = 16 << 10
	defaultConnectionTimeout = 5 * time.Second

	// Windows that are given turn gRPC's probing of the bandwidth off. 1 MiB is worse than probing at 50 ms.
	streamWindow = 8 << 20
	tunnelWindow = 16 << 20

	// A peer that is idle costs no more than its read buffer; gRPC gives write buffers back after each flush.
	readBuffer  = 4 << 10
	writeBuffer = 64 << 10

	workersPerCPU = 4

	// gRPC itself resets a stream with a larger header list, with an error that does not say why. Up to this many times
	// the limit the caller is told.
	headerSlack = 4

	serverPingAfter   = 20 * time.Second
	serverPingTimeout = 10 * time.Second
	clientPingFloor   = 5 * time.Second // clients ping every 10 s
)

func (c ServerConfig) withDefaults() ServerConfig {
	if c.Network == "" {
		c.Network = DefaultNetwork
	}
	c.MaxCallsPerPeer = orDefault(c.MaxCallsPerPeer, defaultMaxCallsPerPeer)
	c.MaxCalls = orDefault(c.MaxCalls, defaultMaxCalls)
	c.MaxTunnelsPerPeer = orDefault(c.MaxTunnelsPerPeer, defaultMaxTunnelsPerPeer)
	c.BusyWait = orDefault(c.BusyWait, defaultBusyWait)
	c.MaxMessageSize = orDefault(c.MaxMessageSize, defaultMaxMessageSize)
	c.MaxHeaderSize = orDefault(c.MaxHeaderSize, defaultMaxHeaderSize)
	c.ConnectionTimeout = orDefault(c.ConnectionTimeout, defaultConnectionTimeout)
	c.WriteStall = orDefault(c.WriteStall, defaultWriteStall)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// newGRPC builds the gRPC server. gRPC panics on options that are set twice.
func (s *Server) newGRPC() (g *grpc.Server, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("grpcstream: server options: %v: grpc.StreamInterceptor and grpc.InTapHandle are taken; "+
				"use grpc.ChainStreamInterceptor", r)
		}
	}()
	opts := []grpc.ServerOption{
		grpc.MaxConcurrentStreams(uint32(s.cfg.MaxCallsPerPeer)),
		grpc.MaxRecvMsgSize(s.cfg.MaxMessageSize),
		grpc.MaxSendMsgSize(s.cfg.MaxMessageSize),
		grpc.MaxHeaderListSize(uint32(headerSlack * s.cfg.MaxHeaderSize)),
		grpc.ConnectionTimeout(s.cfg.ConnectionTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: serverPingAfter, Timeout: serverPingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: clientPingFloor, PermitWithoutStream: true}),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(tunnelWindow),
		grpc.ReadBufferSize(readBuffer),
		grpc.WriteBufferSize(writeBuffer),
		grpc.NumStreamWorkers(uint32(workersPerCPU * runtime.GOMAXPROCS(0))),
		grpc.StreamInterceptor(s.guardStream),
		grpc.InTapHandle(s.tapHeader),
		grpc.UnknownServiceHandler(s.unknownMethod),
	}
	opts = append(opts, s.cfg.Options...)
	opts = append(opts, grpc.Creds(NewCredentials()))
	return grpc.NewServer(opts...), nil
}
