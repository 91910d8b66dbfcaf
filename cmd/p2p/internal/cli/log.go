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
func newLogger(w io.Writer, level slog.Level, starting *atomic.Bool) *slog.Logger {
	return slog.New(startHandler{Handler: slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}), starting: starting})
}

// startHandler leaves out the errors of a start, which the command returns, and prints or mends, itself.
type startHandler struct {
	slog.Handler
	starting *atomic.Bool
}

// Handle implements [slog.Handler].
func (h startHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError && h.starting.Load() {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (h startHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return startHandler{Handler: h.Handler.WithAttrs(attrs), starting: h.starting}
}

// WithGroup implements [slog.Handler].
func (h startHandler) WithGroup(name string) slog.Handler {
	return startHandler{Handler: h.Handler.WithGroup(name), starting: h.starting}
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
