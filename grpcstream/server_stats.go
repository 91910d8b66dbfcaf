package grpcstream

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// MethodStats is the account of the calls of one method that a [Server] has served.
type MethodStats struct {
	// Method is the full name, "/package.Service/Method". It is empty for the calls of all methods together that the
	// server does not have.
	Method string
	// Calls is how many calls have ended, those that were refused included.
	Calls uint64
	// Errors is how many of them ended with each code other than OK. An answer that is too large to be sent is no error
	// here.
	Errors map[codes.Code]uint64
	// P50, P90 and P99 are the time that the quickest 50 %, 90 % and 99 % of the calls stayed within, at most an eighth
	// too long, and Max is that of the longest: from the arrival of a call, or of a stream, to the end of its handler.
	// Refused calls do not count.
	P50, P90, P99, Max time.Duration
	// BytesIn and BytesOut are the size of the protobuf messages received and sent, without compression and framing.
	BytesIn, BytesOut uint64
}

// Stats returns the accounts of the methods that were called since the start, sorted by name. It may be called at any
// time. The numbers of an account are read one by one while calls go on: they may miss each other by these calls.
func (s *Server) Stats() []MethodStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []MethodStats
	for _, m := range s.methods {
		if st := m.stats.read(); st.Calls > 0 {
			st.Method = m.name
			out = append(out, st)
		}
	}
	if st := s.unknown.stats.read(); st.Calls > 0 {
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b MethodStats) int { return cmp.Compare(a.Method, b.Method) })
	return out
}

// method is a registered method, or the one that stands for all others, which has no name.
type method struct {
	name   string
	stats  callStats
	stream *grpc.StreamDesc // nil: it is unary
	impl   any              // whose method it is
}

// callStats counts the calls of a method. Counting takes no lock, and no memory but one small object a unary call.
type callStats struct {
	codes   [codes.Unauthenticated + 1]atomic.Uint64
	latency histogram
	in, out atomic.Uint64
}

// refused counts a call that was not let in.
func (c *callStats) refused(err error) { c.codes[codeOf(err)].Add(1) }

// ended counts a call that ended with *err.
func (c *callStats) ended(begin time.Time, err *error) {
	c.latency.add(time.Since(begin))
	c.codes[codeOf(*err)].Add(1)
}

// receiving is decode, counting.
func (c *callStats) receiving(decode func(any) error) func(any) error {
	return func(m any) error {
		err := decode(m)
		if err == nil {
			c.in.Add(sizeOf(m))
		}
		return err
	}
}

// sent counts the answer of a unary call.
func (c *callStats) sent(m any) { c.out.Add(sizeOf(m)) }

func (c *callStats) read() MethodStats {
	out := MethodStats{BytesIn: c.in.Load(), BytesOut: c.out.Load()}
	for code := range c.codes {
		n := c.codes[code].Load()
		out.Calls += n
		if n == 0 || codes.Code(code) == codes.OK {
			continue
		}
		if out.Errors == nil {
			out.Errors = make(map[codes.Code]uint64)
		}
		out.Errors[codes.Code(code)] = n
	}
	q := c.latency.quantiles(0.5, 0.9, 0.99)
	out.P50, out.P90, out.P99, out.Max = q[0], q[1], q[2], c.latency.longest()
	return out
}

// countedStream counts the messages of a stream.
type countedStream struct {
	grpc.ServerStream
	stats *callStats
}

// RecvMsg implements [grpc.ServerStream].
func (s countedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil {
		s.stats.in.Add(sizeOf(m))
	}
	return err
}

// SendMsg implements [grpc.ServerStream].
func (s countedStream) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	if err == nil {
		s.stats.out.Add(sizeOf(m))
	}
	return err
}

func sizeOf(m any) uint64 {
	if p, ok := m.(proto.Message); ok {
		return uint64(proto.Size(p))
	}
	return 0
}

// codeOf is the code that gRPC sends for the error of a handler.
func codeOf(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	if c := st.Code(); c <= codes.Unauthenticated {
		return c
	}
	return codes.Unknown
}
