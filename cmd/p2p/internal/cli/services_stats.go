package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/protocols/nodeinfo"
)

// statsTimeout is how long a peer may take to tell its account.
const statsTimeout = 10 * time.Second

// statsJSON is the account of one method in JSON.
type statsJSON struct {
	Method   string            `json:"method"`
	Calls    uint64            `json:"calls"`
	Errors   map[string]uint64 `json:"errors"`
	P50      float64           `json:"p50_ms"`
	P90      float64           `json:"p90_ms"`
	P99      float64           `json:"p99_ms"`
	Max      float64           `json:"max_ms"`
	BytesIn  uint64            `json:"bytes_in"`
	BytesOut uint64            `json:"bytes_out"`

	failed string // the errors for people, by code
}

func (a *app) servicesStatsCommand() *cobra.Command {
	return a.readCommand(&cobra.Command{
		Use:   "stats [PEER]",
		Short: "Show which calls a node has served",
		Long: `Show which calls a node has served since it was started: for each method the calls, how many of
them failed with which code, how long they took (half of them no longer than P50, 99 % no longer than
P99), and the bytes of their messages. Without PEER it is the running node itself.

JSON: a list of {"method", "calls", "errors": {code: count}, "p50_ms", "p90_ms", "p99_ms", "max_ms",
"bytes_in", "bytes_out"}. The method "" stands for all that the node does not have.`,
		Example: `  p2p services stats
  p2p services stats 12D3KooW…
  p2p services stats alice -o json`,
		Args:              exactly("[PEER]"),
		ValidArgsFunction: a.completePeers,
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := a.printer()
			if err != nil {
				return err
			}
			target := strings.Join(args, "")
			if len(args) > 0 {
				if err := checkPeer(target); err != nil {
					return err
				}
			}
			return a.withNode(cmd.Context(), func(c control.ControlServiceClient, conn *grpc.ClientConn) error {
				return stats(cmd.Context(), c, conn, out, target)
			})
		},
	})
}

// stats asks a peer, or the node itself, for its account.
func stats(ctx context.Context, c control.ControlServiceClient, conn *grpc.ClientConn, out *output.Printer, target string) error {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	if target == "" {
		res, err := c.Status(ctx, &control.StatusRequest{})
		if err != nil {
			return err
		}
		target = res.GetId()
	}
	methods, err := nodeinfo.Stats(control.WithTarget(ctx, target), conn)
	if err != nil {
		return &callError{what: "asking for the statistics", peer: target, err: err}
	}
	values, rows := listOf(methods, statsOf)
	if len(rows) == 0 && !out.IsJSON() {
		return out.Printf("No calls yet.\n")
	}
	return out.Print(values, []string{"METHOD", "CALLS", "FAILED", "P50", "P90", "P99", "MAX", "IN", "OUT"}, rows)
}

func statsOf(m grpcstream.MethodStats) statsJSON {
	v := statsJSON{
		Method: strings.TrimPrefix(m.Method, "/"), Calls: m.Calls, Errors: make(map[string]uint64),
		P50: inMillis(m.P50), P90: inMillis(m.P90), P99: inMillis(m.P99), Max: inMillis(m.Max), BytesIn: m.BytesIn, BytesOut: m.BytesOut,
	}
	var failed []string
	for _, code := range slices.Sorted(maps.Keys(m.Errors)) {
		v.Errors[code.String()] = m.Errors[code]
		failed = append(failed, fmt.Sprintf("%d %s", m.Errors[code], code))
	}
	v.failed = strings.Join(failed, ", ")
	return v
}

func inMillis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (v statsJSON) row() []string {
	method := v.Method
	if method == "" {
		method = "(methods that it does not have)"
	}
	return []string{
		method, strconv.FormatUint(v.Calls, 10), or(v.failed), duration(&v.P50), duration(&v.P90), duration(&v.P99),
		duration(&v.Max), size(v.BytesIn), size(v.BytesOut),
	}
}

// size says a number of bytes as people do.
func size(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, prefix := float64(n)/unit, 0
	for value >= unit {
		value /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[prefix])
}
