package resume

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A carrier is an RPC that carries a stream for a while.
type carrier interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

// A flow is one end of a stream: the frames that it has sent and that the other end has not taken, and those that have
// come and were not taken here. Frames are numbered by their order; a carrier begins with the first one that the other end
// has not received. Taking makes room: the sender never has more under way than the window, so that the receiver can always
// read everything, and news of what was taken is never stuck behind messages.
//
// Its methods may be called concurrently.
type flow struct {
	mu      sync.Mutex
	changed chan struct{} // closed at the next change; nil: nobody waits

	out     []*Frame // not known to be taken by the other end
	base    uint64   // number of out[0]
	next    uint64   // number of the first that the carrier has not got
	outSize int
	ending  bool // the last of out is the end of the stream

	in       []*Frame // received and not taken here
	inSize   int
	received uint64
	taken    uint64
	untold   int  // size of what was taken and the other end does not know
	closed   bool // no more will come

	attempt  uint32 // the carrier in use
	broken   error  // what ended it
	complete bool   // both ends have everything
	err      error  // what ended the flow before that
}

var (
	// Not Aborted, which is final: gRPC itself may make an RPC again whose answer was lost, and the next one goes on.
	errSuperseded = status.Error(codes.Unavailable, "grpcstream: another connection carries the stream")
	errRemoved    = status.Error(codes.Canceled, "grpcstream: the caller was not heard of for too long, or the server is shutting down")
	errExpired    = status.FromContextError(context.DeadlineExceeded).Err()
	errCanceled   = status.Error(codes.Canceled, "grpcstream: the caller has canceled the stream")
)

// roomFor tells whether a message may be sent after so much that the other end is not known to have taken. One that is
// larger than the window goes when that is little: what was taken is told when it comes to tellFrom.
func roomFor(f *Frame, size int) bool { return size < tellFrom || size+sizeOf(f) <= window }

func (f *flow) notifyLocked() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// waitLocked waits for a change, and reports false when done is closed before. It releases the lock meanwhile.
func (f *flow) waitLocked(done <-chan struct{}) bool {
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	changed := f.changed
	f.mu.Unlock()
	defer f.mu.Lock()
	select {
	case <-changed:
		return true
	case <-done:
		return false
	}
}

// fail ends the flow.
func (f *flow) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && !f.complete {
		f.err = err
	}
	f.notifyLocked()
}

// failed returns why the flow has ended, or nil.
func (f *flow) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// send gives a frame to the other end, a message as soon as there is room for it.
func (f *flow) send(ctx context.Context, fr *Frame) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, message := fr.GetKind().(*Frame_Message)
	for message && !roomFor(fr, f.outSize) && f.err == nil && !f.complete {
		if !f.waitLocked(ctx.Done()) {
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	switch {
	case f.err != nil:
		return f.err
	case f.complete:
		return io.EOF
	}
	f.out = append(f.out, fr)
	f.outSize += sizeOf(fr)
	f.ending = fr.GetEnd() != nil
	f.notifyLocked()
	return nil
}

// recv takes the next frame that has come.
func (f *flow) recv(ctx context.Context) (*Frame, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.in) == 0 {
		if f.err != nil {
			return nil, f.err
		}
		if !f.waitLocked(ctx.Done()) {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	fr := f.in[0]
	f.in[0] = nil
	f.in = f.in[1:]
	f.inSize -= sizeOf(fr)
	f.taken++
	if f.untold += sizeOf(fr); f.untold >= tellFrom {
		f.notifyLocked() // the writer tells the other end
	}
	return fr, nil
}

// attach begins with a carrier in place of the one before. The other end has received so many frames; so many have come.
func (f *flow) attach(attempt uint32, received uint64) (have uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return 0, f.err
	case attempt <= f.attempt:
		return 0, errSuperseded
	case received < f.base || received > f.base+uint64(len(f.out)):
		return 0, errProtocol("frames were received that were not sent")
	}
	f.attempt, f.broken, f.next = attempt, nil, received
	if f.taken > 0 {
		f.untold = tellFrom // the last news of it may be lost
	}
	f.notifyLocked()
	return f.received, nil
}

// accept takes in a frame that a carrier has brought.
func (f *flow) accept(attempt uint32, fr *Frame) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if attempt != f.attempt {
		return errSuperseded
	}
	defer f.notifyLocked()
	switch k := fr.GetKind().(type) {
	case nil:
		return errProtocol("a frame of no known kind")
	case *Frame_Taken:
		return f.forgetLocked(k.Taken)
	case *Frame_Message:
		if !roomFor(fr, f.inSize) {
			return errProtocol("more under way than the window allows")
		}
	case *Frame_Header:
		if f.received > 0 {
			return errProtocol("a header that is not at the beginning")
		}
	case *Frame_HalfClose:
		if !k.HalfClose { // any number of them could come
			return errProtocol("a half_close that is false")
		}
	}
	if f.closed {
		return errProtocol("a frame after the last")
	}
	f.in = append(f.in, fr)
	f.inSize += sizeOf(fr)
	f.received++
	if fr.GetEnd() != nil {
		f.complete = true
		f.untold = tellFrom // the server may forget the stream
	}
	f.closed = f.complete || fr.GetHalfClose()
	return nil
}

// forgetLocked drops the frames that the other end has taken.
func (f *flow) forgetLocked(taken uint64) error {
	if taken < f.base || taken > f.next {
		return errProtocol("frames were taken that were not sent")
	}
	for ; f.base < taken; f.base++ {
		f.outSize -= sizeOf(f.out[0])
		f.out[0] = nil
		f.out = f.out[1:]
	}
	f.complete = f.complete || f.ending && len(f.out) == 0
	return nil
}

// read takes in what a carrier brings that control lets pass, until it ends.
func (f *flow) read(c carrier, attempt uint32, control func(*Frame) error) {
	for {
		fr := new(Frame)
		err := c.RecvMsg(fr)
		if err == nil {
			err = control(fr)
		}
		if err == nil {
			err = f.accept(attempt, fr)
		}
		if err != nil {
			f.lost(attempt, err)
			return
		}
	}
}

// lost says that a carrier has ended.
func (f *flow) lost(attempt uint32, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if attempt == f.attempt && f.broken == nil {
		f.broken = err
		f.notifyLocked()
	}
}

// write gives a carrier what there is to send, until it or the flow ends. It returns nil when both ends have everything.
func (f *flow) write(c carrier, attempt uint32) error {
	for {
		fr, err := f.toWrite(attempt, true)
		if err == nil && fr != nil {
			err = c.SendMsg(fr)
		}
		if errors.Is(err, io.EOF) { // RecvMsg tells why
			_, err = f.toWrite(attempt, false)
		}
		if err != nil || fr == nil {
			return err
		}
	}
}

// toWrite returns the next frame for a carrier, nil when there will be no more, or why it carries no longer. When it can
// no longer, it only waits for the latter.
func (f *flow) toWrite(attempt uint32, can bool) (*Frame, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case attempt != f.attempt:
			return nil, errSuperseded
		case f.err != nil:
			return nil, f.err
		case f.complete && (!can || f.broken != nil || f.untold < tellFrom):
			return nil, nil
		case f.broken != nil:
			return nil, f.broken
		case !can:
		case f.untold >= tellFrom:
			f.untold = 0
			n := f.taken
			if f.complete {
				n = f.received
			}
			return &Frame{Kind: &Frame_Taken{Taken: n}}, nil
		case f.next < f.base+uint64(len(f.out)):
			fr := f.out[f.next-f.base]
			f.next++
			return fr, nil
		}
		f.waitLocked(nil)
	}
}
