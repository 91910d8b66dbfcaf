package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
	"github.com/lynn9388/p2p/internal/addr"
)

func (a *app) peersCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "peers",
		Short: "Show the peers, connect to them, forget them, name them",
		Long: `Show the peers, connect to them, forget them, name them.

Every peer has a state: known (its addresses are), connecting, connected, or neighbor (a
connection that the node keeps).`,
		Args: cobra.ArbitraryArgs,
	}, a.peersListCommand(), a.peersInfoCommand(), a.peersConnectCommand(),
		a.peersDisconnectCommand(), a.peersForgetCommand(), a.peersPinCommand())
}

func (a *app) peersListCommand() *cobra.Command {
	var neighbors, watch bool
	cmd := a.readCommand(&cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List every known peer with its state",
		Long: `List every known peer with its state. A name in parentheses is what the peer calls itself;
one without was pinned here with "p2p peers pin".

VIA is what carries the connection, and who relays it when it is not direct.

JSON: a list of peers {"id", "name", "pinned_name", "state", "addrs": [], "path", "relay",
"path_since", "not_direct", "transport", "rtt_ms", "services": [], "source", "version", "since",
"last_error"}; relay is null or {"id", "name", "pinned_name"}. With --watch, one line for each
event: {"time", "kind", "peer": {…}, "service", "error"}; the peers that are there at the start
come first, with the kind "present".`,
		Example: `  p2p peers ls
  p2p peers ls --neighbors
  p2p peers ls --watch
  p2p peers ls -o json | jq -r '.[].id'`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := a.printer()
			if err != nil {
				return err
			}
			return a.withNode(cmd.Context(), func(c control.ControlServiceClient, _ *grpc.ClientConn) error {
				if watch {
					return watchPeers(cmd.Context(), c, out, neighbors)
				}
				res, err := c.ListPeers(cmd.Context(), &control.ListPeersRequest{NeighborsOnly: neighbors})
				if err != nil {
					return err
				}
				return printPeers(out, res.GetPeers())
			})
		},
	})
	cmd.Flags().BoolVar(&neighbors, "neighbors", false, "list the neighbors only")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on and show what changes, until Ctrl-C")
	return cmd
}

func printPeers(out *output.Printer, peers []*control.Peer) error {
	values, rows := listOf(peers, peerOf)
	if len(rows) == 0 && !out.IsJSON() {
		return out.Printf("No peers yet. \"p2p status\" says what may keep others from being found.\n")
	}
	return out.Print(values, peerHeader(), rows)
}

func watchPeers(ctx context.Context, c control.ControlServiceClient, out *output.Printer, neighbors bool) error {
	stream, err := c.WatchPeers(ctx, &control.WatchPeersRequest{NeighborsOnly: neighbors})
	if err != nil {
		return watchEnd(ctx, err)
	}
	var present []*control.Peer
	listed := false
	for {
		res, err := stream.Recv()
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // Ctrl-C is the way to end a watch
		case err != nil:
			return watchEnd(ctx, err)
		case res.GetPeer() == nil:
			listed = true
			if !out.IsJSON() {
				if err := printPeers(out, present); err != nil {
					return err
				}
			}
			continue
		case !listed && !out.IsJSON():
			present = append(present, res.GetPeer())
			continue
		}
		e := eventOf(res)
		if err := out.Line(e, "%s  %s", e.Time.Format(time.TimeOnly), e.text()); err != nil {
			return err
		}
	}
}

// watchEnd says why a watch ended that was meant to go on: nil when ctx did, since Ctrl-C is the way to end one.
func watchEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // see above
	}
	return fmt.Errorf("the node has stopped, or the connection to it broke: %w", errors.New(message(err)))
}

func (a *app) peersInfoCommand() *cobra.Command {
	return a.readCommand(a.peerCommand(&cobra.Command{
		Use:   "info PEER",
		Short: "Show one peer, and ask it about itself",
		Long: `Show what is known of one peer, and whether it answers now. It exits with 1 when the peer
does not answer.

"not direct" says why there is only a relayed connection, and "attempts" what each try to get a
direct one met: dial is for an address that anybody can reach, punch for one that both sides dial
at once, lan for a private one.

JSON: a peer as in "peers ls", and {"answered", "error", "start_time", "attempts": [{"time",
"took_ms", "role", "met": [{"addr", "how", "took_ms", "error"}], "error"}]}`,
		Example: `  p2p peers info 12D3KooW…
  p2p peers info alice            a name that was pinned`,
	}, func(ctx context.Context, c control.ControlServiceClient, target string) error {
		out, err := a.printer()
		if err != nil {
			return err
		}
		res, err := c.GetPeer(ctx, &control.GetPeerRequest{Target: target})
		if err != nil {
			return err
		}
		v := peerInfoOf(res)
		if err := out.Print(v, nil, v.rows()); err != nil {
			return err
		}
		if !res.GetAnswered() {
			return fmt.Errorf("%s does not answer: %s", v.ID, v.Error)
		}
		return nil
	}))
}

// peerCommand makes a command that has one peer as its argument.
func (a *app) peerCommand(cmd *cobra.Command, do func(ctx context.Context, c control.ControlServiceClient, target string) error) *cobra.Command {
	cmd.Args = exactly("PEER")
	cmd.ValidArgsFunction = a.completePeers
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkPeer(args[0]); err != nil && (cmd.Name() != connectName || !isPlace(args[0])) {
			return err
		}
		if _, err := a.printer(); err != nil { // a wrong --output, of those that have it
			return err
		}
		return a.withNode(cmd.Context(), func(c control.ControlServiceClient, _ *grpc.ClientConn) error {
			return do(cmd.Context(), c, args[0])
		})
	}
	return cmd
}

// checkPeer finds a PEER that cannot be one.
func checkPeer(arg string) error {
	if err := control.CheckTarget(arg); err != nil {
		return &usageError{err}
	}
	return nil
}

// isPlace tells whether an argument is host:port.
func isPlace(arg string) bool {
	_, _, err := addr.SplitHostPort(arg)
	return err == nil && !strings.Contains(arg, "@")
}

// say prints one line to standard output.
func (a *app) say(format string, args ...any) error {
	out, err := output.New(a.stdout, output.Table)
	if err != nil {
		return err
	}
	return out.Printf(format+"\n", args...)
}

// connectName is the command that also takes host:port.
const connectName = "connect"

func (a *app) peersConnectCommand() *cobra.Command {
	return a.peerCommand(&cobra.Command{
		Use:   connectName + " PEER",
		Short: "Connect to a peer, and keep it as a neighbor",
		Long: `Connect to a peer and keep it as a neighbor until "p2p peers disconnect". PEER may also be
host:port: then it is whoever answers there, and the ID is shown.`,
		Example: `  p2p peers connect 12D3KooW…@192.0.2.7:9388
  p2p peers connect 192.0.2.7:9388`,
	}, func(ctx context.Context, c control.ControlServiceClient, target string) error {
		res, err := c.Connect(ctx, &control.ConnectRequest{Target: target})
		if err != nil {
			return err
		}
		p := peerOf(res.GetPeer())
		return a.say("connected to %s %s in %s", p.ID, p.label(), res.GetRtt().AsDuration().Round(time.Microsecond))
	})
}

func (a *app) peersDisconnectCommand() *cobra.Command {
	return a.peerCommand(&cobra.Command{
		Use:   "disconnect PEER",
		Short: "Close the connections to a peer",
		Long: `Close the connections to a peer. While it runs, the node does not dial it again by itself
(unless it is one of its relays), until it is called or connected with "p2p peers connect".
It may come back by itself: an allow list keeps it out.`,
		Example: "  p2p peers disconnect 12D3KooW…",
	}, func(ctx context.Context, c control.ControlServiceClient, target string) error {
		res, err := c.Disconnect(ctx, &control.DisconnectRequest{Target: target})
		if err != nil {
			return err
		}
		return a.say("disconnected from %s", res.GetId())
	})
}

func (a *app) peersForgetCommand() *cobra.Command {
	return a.peerCommand(&cobra.Command{
		Use:   "forget PEER",
		Short: "Disconnect from a peer and forget it",
		Long: `Disconnect from a peer and drop all that is remembered of it: its addresses, the name that
was pinned to it, and that it was the one who answered at an address that the node was told to join.`,
		Example: "  p2p peers forget 12D3KooW…",
	}, func(ctx context.Context, c control.ControlServiceClient, target string) error {
		res, err := c.Forget(ctx, &control.ForgetRequest{Target: target})
		if err != nil {
			return err
		}
		return a.say("forgot %s", res.GetId())
	})
}

func (a *app) peersPinCommand() *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use:   "pin PEER NAME",
		Short: "Let a name stand for a peer",
		Long: `Let a name stand for a peer, so that commands take the name in place of the ID. What a peer
calls itself is a claim that any node can make: it is shown in parentheses, and no command takes it.
"p2p peers forget" drops the name again.`,
		Example:           "  p2p peers pin 12D3KooW… alice\n  p2p ping alice",
		Args:              exactly("PEER", "NAME"),
		ValidArgsFunction: a.completePeers,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkPeer(args[0]); err != nil {
				return err
			}
			return a.withNode(cmd.Context(), func(c control.ControlServiceClient, _ *grpc.ClientConn) error {
				res, err := c.PinName(cmd.Context(), &control.PinNameRequest{Target: args[0], Name: args[1], Replace: replace})
				if err != nil {
					return err
				}
				return a.say("%s is now %s", args[1], res.GetId())
			})
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "take the name from the peer that has it")
	return cmd
}

// completePeers offers the pinned names and the IDs of the known peers.
func (a *app) completePeers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var words []string
	_ = a.withNode(cmd.Context(), func(c control.ControlServiceClient, _ *grpc.ClientConn) error {
		res, err := c.ListPeers(cmd.Context(), &control.ListPeersRequest{})
		for _, p := range res.GetPeers() {
			v := peerOf(p)
			if v.PinnedName != "" {
				words = append(words, v.PinnedName+"\t"+v.ID)
			}
			words = append(words, v.ID+"\t"+strings.TrimSpace(v.label()+" "+v.State))
		}
		return err
	})
	return words, cobra.ShellCompDirectiveNoFileComp
}
