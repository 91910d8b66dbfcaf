package cli

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/gologshim"
)

// newLogger returns a logger to w. The text handler quotes every value that is not plainly printable, so what peers chose
// in it is safe.
func newLogger(w io.Writer, level slog.Level, now *phase) *slog.Logger {
	return slog.New(runHandler{Handler: slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}), now: now})
}

// phase is what "p2p run" does now.
type phase struct {
	starting  atomic.Bool // the node is being started
	reporting atomic.Bool // what happens is printed
}

// runHandler leaves out what the command says itself: the errors of a start, which it prints or mends, and at the start
// and while it prints the events the warnings of these, unless a fuller log was asked for.
type runHandler struct {
	slog.Handler
	now *phase
}

// Handle implements [slog.Handler].
func (h runHandler) Handle(ctx context.Context, r slog.Record) error {
	switch {
	case r.Level >= slog.LevelError && h.now.starting.Load():
		return nil
	case r.Level == slog.LevelWarn && (h.now.starting.Load() || h.now.reporting.Load()) && isEvent(r) && !h.Enabled(ctx, slog.LevelInfo):
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// isEvent tells whether a record says what an event of the node says.
func isEvent(r slog.Record) (yes bool) {
	r.Attrs(func(a slog.Attr) bool {
		yes = yes || a.Key == "kind"
		return !yes
	})
	return yes
}

// WithAttrs implements [slog.Handler].
func (h runHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return runHandler{Handler: h.Handler.WithAttrs(attrs), now: h.now}
}

// WithGroup implements [slog.Handler].
func (h runHandler) WithGroup(name string) slog.Handler {
	return runHandler{Handler: h.Handler.WithGroup(name), now: h.now}
}

// debugOnly returns a logger for a part of the node of which the command itself says what a person wants to know.
func debugOnly(log *slog.Logger) *slog.Logger { return slog.New(debugHandler{log.Handler()}) }

// debugHandler leaves out all but the records for finding a fault.
type debugHandler struct{ slog.Handler }

// Enabled implements [slog.Handler].
func (h debugHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level <= slog.LevelDebug && h.Handler.Enabled(ctx, level)
}

// WithAttrs implements [slog.Handler].
func (h debugHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return debugHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements [slog.Handler].
func (h debugHandler) WithGroup(name string) slog.Handler {
	return debugHandler{h.Handler.WithGroup(name)}
}

// quietDependencies keeps what libraries print by themselves off the terminal: quic-go's advice on buffer sizes, which
// is of no use on a LAN, and libp2p's records.
func quietDependencies() {
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	if os.Getenv("GOLOG_LOG_LEVEL") == "" { // who sets it wants to see libp2p's records
		gologshim.SetDefaultHandler(slog.DiscardHandler)
	}
}
