package cli

import (
	"context"
	"io"
)

// interruptible is standard input whose reads also end when the command is told to end: a terminal is read until somebody
// types something. What such a read would have returned is lost. Reads are for one goroutine at a time.
type interruptible struct {
	ctx  context.Context //nolint:containedctx // of the command, which io.Reader has no place for
	from io.Reader
}

// Read implements [io.Reader].
func (r *interruptible) Read(p []byte) (int, error) {
	type outcome struct {
		read []byte
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		own := make([]byte, len(p))
		n, err := r.from.Read(own)
		done <- outcome{own[:n], err}
	}()
	select {
	case o := <-done:
		return copy(p, o.read), o.err
	case <-r.ctx.Done():
		return 0, r.ctx.Err()
	}
}
