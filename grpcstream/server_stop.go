package grpcstream

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	// watchGrace is how long health watches get to hear that nothing is served any more.
	watchGrace = 100 * time.Millisecond

	// stopGrace is how long handlers get to return after their context has ended.
	stopGrace = 2 * time.Second
)

// listen opens what the server accepts tunnels from. All or nothing.
func (s *Server) listen(h corehost.Host) ([]net.Listener, error) {
	pids := []protocol.ID{TunnelProtocol(s.cfg.Network)}
	if s.cfg.Standard {
		pids = append(pids, StandardProtocol)
	}
	var listeners []net.Listener
	for _, pid := range pids {
		l, err := listen(h, pid)
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
			return nil, err
		}
		listeners = append(listeners, tunnelListener{l, s})
	}
	s.memory = s.listenMemory(selfPeer(h))
	return append(listeners, s.memory), nil
}

// Shutdown ends the serving: it withdraws the announcements, reports NOT_SERVING to those who watch, stops accepting
// tunnels and calls, and lets running calls end. When ctx ends it cancels those that still run, closes the tunnels, and
// waits 2 seconds more at most. It returns an error if calls had to be canceled, and a different one if handlers even
// then did not return; everything else has ended when it returns. It may be called more than once, and on a server
// that was never started.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopOnce.Do(func() {
		s.stopErr = s.shutdown(ctx)
		close(s.stopped)
	})
	<-s.stopped
	return s.stopErr
}

func (s *Server) shutdown(ctx context.Context) error {
	s.life.Lock()
	defer s.life.Unlock()
	s.mu.Lock()
	was := s.state
	s.state = serverClosed
	g := s.grpc
	s.mu.Unlock()
	defer s.unwatch()
	if was != serverStarted {
		return nil
	}

	// 1. Nobody is sent here any more.
	s.withdraw()
	s.health.Shutdown()
	defer time.AfterFunc(watchGrace, s.unwatch).Stop()

	// 2. Tunnels that never began would hold up everything that follows.
	s.cutTunnels(func(t *tunnel) bool { return !t.isOpen() })
	s.resumes.Close()

	// 3. Running calls end, by themselves or not.
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		g.GracefulStop()
	}()
	var err error
	select {
	case <-graceful:
	case <-ctx.Done():
		if s.limits.running() {
			err = fmt.Errorf("grpcstream: shutdown: running calls were canceled: %w", context.Cause(ctx))
		}
		s.cutTunnels(func(*tunnel) bool { return true })
		go g.Stop()
		select {
		case <-graceful:
		case <-time.After(stopGrace):
			return fmt.Errorf("grpcstream: shutdown: handlers still run %v after they were canceled: %w", stopGrace, context.Cause(ctx))
		}
	}
	s.serving.Wait()
	if !s.resumes.Wait(stopGrace) {
		return fmt.Errorf("grpcstream: shutdown: handlers of resumable streams still run %v after they were canceled", stopGrace)
	}
	return err
}

func (s *Server) cutTunnels(which func(*tunnel) bool) {
	s.mu.Lock()
	tunnels := slices.Collect(maps.Keys(s.tunnels))
	s.mu.Unlock()
	for _, t := range tunnels {
		if which(t) {
			s.serving.Go(t.cut)
		}
	}
}
