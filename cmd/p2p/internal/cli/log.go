package cli

import (
	"io"
	"log/slog"
	"os"
)

// newLogger returns a logger to w. The text handler quotes every value that is not plainly printable, so what peers chose
// in it is safe.
func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// quietDependencies keeps what libraries print by themselves off the terminal: quic-go's advice on buffer sizes, which
// is of no use on a LAN.
func quietDependencies() {
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
}
