package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
)

// pingTimeout is how long one answer is waited for.
const pingTimeout = 10 * time.Second

// pingJSON is what "p2p ping -o json" prints.
type pingJSON struct {
	ID        string      `json:"id"`
	Path      string      `json:"path"`
	Relay     *senderJSON `json:"relay"`
	Transport string      `json:"transport"`
	Sent      int         `json:"sent"`
	RTTs      []float64   `json:"rtts_ms"`
}

func (a *app) pingCommand() *cobra.Command {
	var count int
	var interval time.Duration
	cmd := a.readCommand(a.peerCommand(&cobra.Command{
		Use:   "ping PEER",
		Short: "Measure the round trip of a call to a peer",
		Long: `Measure the round trip of a call to a peer, over the connection that calls to it take. It
connects first if need be, which is not counted. It exits with 1 when an answer is missing.

JSON, after the last: {"id", "path", "relay", "transport", "sent", "rtts_ms": []}; the path is
that of the last answer, and relay is null or {"id", "name", "pinned_name"}.`,
		Example: `  p2p ping 12D3KooW…
  p2p ping alice -c 1
  p2p ping 12D3KooW…@192.0.2.7:9388`,
		PreRunE: func(*cobra.Command, []string) error {
			switch {
			case count < 1:
				return usagef("--count %d: at least 1", count)
			case interval < 0:
				return usagef("--interval %s: it must not be negative", interval)
			}
			return nil
		},
	}, func(ctx context.Context, c control.ControlServiceClient, target string) error {
		out, err := a.printer()
		if err != nil {
			return err
		}
		return ping(ctx, c, out, target, count, interval)
	}))
	cmd.Flags().IntVarP(&count, "count", "c", 4, "how many `times`")
	cmd.Flags().DurationVarP(&interval, "interval", "i", time.Second, "the `time` between two")
	return cmd
}

func ping(ctx context.Context, c control.ControlServiceClient, out *output.Printer, target string, count int, interval time.Duration) error {
	if _, err := pingOnce(ctx, c, target); err != nil { // opens the connection
		return err
	}
	result := pingJSON{RTTs: []float64{}}
	var lost error
	for i := range count {
		if i > 0 && !pause(ctx, interval) {
			break
		}
		result.Sent++
		res, err := pingOnce(ctx, c, target)
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			lost = err
			if !out.IsJSON() {
				_ = out.Printf("no answer: %s\n", message(err))
			}
			continue
		}
		result.ID, result.Path, result.Relay, result.Transport = res.GetId(), res.GetPath(), relayOf(res.GetRelay()), res.GetTransport()
		result.RTTs = append(result.RTTs, *millis(res.GetRtt()))
		if !out.IsJSON() {
			via := via(result.Path, result.Transport, result.Relay)
			if err := out.Printf("answer from %s via %s: %s\n", res.GetId(), via, res.GetRtt().AsDuration().Round(time.Microsecond)); err != nil {
				return err
			}
		}
	}
	if out.IsJSON() {
		if err := out.Print(result, nil, nil); err != nil {
			return err
		}
	}
	if lost != nil {
		return fmt.Errorf("%d of %d without an answer: %w", result.Sent-len(result.RTTs), result.Sent, errors.New(message(lost)))
	}
	return nil
}

func pingOnce(ctx context.Context, c control.ControlServiceClient, target string) (*control.PingResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return c.Ping(ctx, &control.PingRequest{Target: target}, grpc.WaitForReady(false))
}

// pause waits, and tells whether ctx is still alive then.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
