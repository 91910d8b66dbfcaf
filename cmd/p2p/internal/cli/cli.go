// Package cli is the command line of p2p.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
	"github.com/lynn9388/p2p/internal/safetext"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitNoNode = 3
)

// app is one run of the command.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer

	home    string // of --home
	format  string // of --output
	started bool   // the command line was understood
}

// Main runs the command with its arguments and returns the exit code. SIGINT and SIGTERM end it gracefully, a second
// one at once.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	quietDependencies()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)() // from now on a signal has its usual effect
	a := &app{stdin: &interruptible{ctx, stdin}, stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return a.report(cmd, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "p2p",
		Short: "Run a node and steer it",
		Long: `p2p runs a node: it finds the other nodes on the local network by itself, and those on other
networks through a relay of your own, and every service that one of them offers can be called by all.

A PEER is given as its ID, as ID@host:port, as ID@RELAY@host:port when it is reached through the
relay with the ID RELAY, as a multiaddr that ends in /p2p/ID, or by a name that was pinned to it with
"p2p peers pin". What "p2p run" prints first, "share: …", is one.

The node's home is the folder that --home names, else the one in P2P_HOME, else
` + defaultHome() + `.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no node runs at the home.`,
		Example: `  p2p run                          start a node, until Ctrl-C
  p2p peers ls                     who is there (in another terminal)
  p2p services ls                  what they offer
  p2p services call hello.v1.GreeterService/Greet -d '{"name": "you"}'`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.started = true
		},
	}
	root.PersistentFlags().StringVar(&a.home, "home", "", "the node's `folder` (default $P2P_HOME, else the user's data folder)")
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(a.runCommand(), a.idCommand(), a.statusCommand(), a.peersCommand(), a.servicesCommand(),
		a.pubCommand(), a.subCommand(), a.queryCommand(), a.pingCommand(), a.doctorCommand(), a.versionCommand())
	return root
}

// group makes a command that only holds others.
func group(cmd *cobra.Command, sub ...*cobra.Command) *cobra.Command {
	var names []string
	for _, s := range sub {
		names = append(names, s.Name())
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("unknown command %q: use one of %s", args[0], strings.Join(names, ", "))
		}
		return usagef("a command is missing: use one of %s", strings.Join(names, ", "))
	}
	cmd.AddCommand(sub...)
	return cmd
}

// readCommand gives a command that shows something its --output flag.
func (a *app) readCommand(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&a.format, "output", "o", output.Table, "how to show it: `table|json`")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{output.Table, output.JSON}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// printer returns the printer in the format that was asked for.
func (a *app) printer() (*output.Printer, error) {
	format := a.format
	if format == "" {
		format = output.Table
	}
	p, err := output.New(a.stdout, format)
	if err != nil {
		return nil, &usageError{err}
	}
	return p, nil
}

// usageError is a mistake on the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usagef returns a usageError; its arguments are made safe to print.
func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, output.Safe(args)...)}
}

// report tells the user what went wrong and returns the exit code.
func (a *app) report(cmd *cobra.Command, err error) int {
	if err == nil {
		return exitDone
	}
	_, usage := errors.AsType[*usageError](err)
	usage = usage || !a.started
	// Only the first line begins at the margin: the others may be a peer's.
	text := strings.NewReplacer("\n", "\n  ", "\t", " ").Replace(safetext.CleanLines(message(err)))
	fmt.Fprintf(a.stderr, "p2p: %s\n", plainText(text))
	switch {
	case usage:
		fmt.Fprintf(a.stderr, "Run \"%s --help\" for how to use it.\n", cmd.CommandPath())
		return exitUsage
	case errors.Is(err, control.ErrNoNode):
		return exitNoNode
	default:
		return exitFailed
	}
}

// plainText leaves out which package an error comes from.
func plainText(s string) string {
	for {
		pkg, rest, ok := strings.Cut(s, ": ")
		if !ok || !slices.Contains([]string{"p2p", "start", "host", "discovery", "grpcstream", "nodeinfo", "broadcast", "dht", "control"}, pkg) {
			return s
		}
		s = rest
	}
}

// message is the text of an error for a person. A status that says all there is to say is reduced to its text.
func message(err error) string {
	var call *callError
	if st, ok := status.FromError(err); ok && !errors.As(err, &call) && st.Code() != codes.Unknown {
		return safetext.Clean(strings.ReplaceAll(st.Message(), "\n", "; ")) // of joined errors
	}
	return err.Error()
}

// withNode runs do with a connection to the node of the home.
func (a *app) withNode(ctx context.Context, do func(c control.ControlServiceClient, conn *grpc.ClientConn) error) error {
	home, err := a.homeDir()
	if err != nil {
		return err
	}
	conn, err := control.Dial(ctx, home)
	if err != nil {
		return noNode(home, err)
	}
	defer func() { _ = conn.Close() }()
	return do(control.NewControlServiceClient(conn), conn)
}

func noNode(home string, err error) error {
	if !errors.Is(err, control.ErrNoNode) {
		return err
	}
	return &noNodeError{home: home, err: err}
}

// noNodeError says that no node runs at a home, and how to start one.
type noNodeError struct {
	home string
	err  error
}

func (e *noNodeError) Error() string {
	return fmt.Sprintf("no node runs at %s: start one with \"p2p run\", or name the home of a running one with --home or P2P_HOME", safetext.Clean(e.home))
}

func (e *noNodeError) Unwrap() error { return e.err }
