package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/doctor"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/reach"
)

// checkJSON is what was found by one check.
type checkJSON struct {
	Check  string `json:"check"`
	Status string `json:"status"`
	Text   string `json:"text"`
	Remedy string `json:"remedy"`
}

func (a *app) doctorCommand() *cobra.Command {
	var relays []string
	cmd := a.readCommand(&cobra.Command{
		Use:   "doctor [PEER]",
		Short: "Find out what is wrong with the node and its network, and what to do",
		Long: `Look at the node and what is around it: key, interfaces, multicast, ports, addresses, relays, UDP,
NAT, port mapping, clock, limits. Each check passes, warns or fails, or says that it cannot know, and
why, and what to do. It contacts nobody but the node's relays and neighbors, and works without the
internet. Where no node runs it looks at what it can without one; --join names relays for that.

With a PEER it looks at what is between the node and the peer, from both ends: the peer is asked
what it sees, and to dial this node.

It exits with 1 when a check fails.

JSON: a list of {"check", "status": "pass"|"warn"|"fail"|"unknown", "text", "remedy"}.`,
		Example: `  p2p doctor
  p2p doctor 12D3KooW…
  p2p doctor --join 12D3KooW…@relay.example.org:9388      without a running node`,
		Args:              exactly("[PEER]"),
		ValidArgsFunction: a.completePeers,
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := a.printer()
			if err != nil {
				return err
			}
			var target string
			if len(args) > 0 {
				if target = args[0]; checkPeer(target) != nil {
					return checkPeer(target)
				}
			}
			checks, err := a.examine(cmd.Context(), target, relays)
			if err != nil {
				return err
			}
			return printChecks(out, checks)
		},
	})
	cmd.Flags().StringArrayVar(&relays, "join", nil, "a relay to look at when no node runs: `ID@host:port` or a multiaddr; may be repeated")
	return cmd
}

// examine has the running node look, or looks at what can be seen without one.
func (a *app) examine(ctx context.Context, target string, relays []string) ([]checkJSON, error) {
	home, err := a.homeDir()
	if err != nil {
		return nil, err
	}
	var checks []checkJSON
	if target == "" {
		checks = append(checks, checkOf(doctor.Home(home)))
	}
	err = a.withNode(ctx, func(c control.ControlServiceClient, _ *grpc.ClientConn) error {
		res, err := c.Examine(ctx, &control.ExamineRequest{Target: target})
		for _, found := range res.GetChecks() {
			checks = append(checks, checkJSON{found.GetName(), found.GetStatus(), found.GetText(), found.GetRemedy()})
		}
		return err
	})
	if target != "" || !errors.Is(err, control.ErrNoNode) {
		return checks, err
	}
	found, err := withoutNode(ctx, relays)
	for _, c := range found {
		checks = append(checks, checkOf(c))
	}
	return checks, err
}

func checkOf(c doctor.Check) checkJSON {
	return checkJSON{c.Name, string(c.Status), c.Text, c.Remedy}
}

// withoutNode looks at what can be seen when no node runs.
func withoutNode(ctx context.Context, relays []string) (out []doctor.Check, err error) {
	h, err := host.New(host.Config{WAN: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	all, listErr := host.Interfaces()
	out = append(out, doctor.Check{
		Name: "node", Status: doctor.Unknown, Text: "none runs at this home, so that less can be known", Remedy: "start it with \"p2p run\", and run this again",
	}, doctor.Interfaces(all, listErr))
	var doors []doctor.Door
	for _, place := range relays {
		d, err := doctor.KnockAt(ctx, h, place)
		if err != nil {
			return nil, &usageError{fmt.Errorf("--join: %w", err)}
		}
		doors = append(doors, d)
	}
	out = append(out, doctor.Relays(doors, reach.Status{})...)
	out = append(out, doctor.Clock(time.Now(), nil))
	return append(out, doctor.Machine().Judge()...), nil
}

// errUnwell is what "p2p doctor" ends with when a check failed; the checks say the rest.
var errUnwell = errors.New("not all is well: see what failed above")

func printChecks(out *output.Printer, checks []checkJSON) error {
	failed := false
	var rows [][]string
	for _, c := range checks {
		failed = failed || c.Status == string(doctor.Fail)
		rows = append(rows, []string{c.Status, c.Check, c.Text})
		if c.Remedy != "" {
			rows = append(rows, []string{"", "", "do: " + c.Remedy})
		}
	}
	if err := out.Print(checks, nil, rows); err != nil {
		return err
	}
	if failed {
		return errUnwell
	}
	return nil
}
