package cli

import (
	"github.com/spf13/cobra"

	"github.com/lynn9388/p2p"
)

// runOptions are the flags of "p2p run".
type runOptions struct {
	listen        string
	profile       string
	name          string
	network       string
	allow         string
	logLevel      string
	webSocket     string
	join          []string
	announce      []string
	tags          []string
	open          bool
	noPortMapping bool
	dht           bool
	ephemeral     bool
	verbose       bool
}

func (a *app) runCommand() *cobra.Command {
	var opts runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a node until Ctrl-C",
		Long: `Run a node in the foreground until SIGINT or SIGTERM.

--profile says for what network:
  lan    finds the other nodes of its network on this machine and on the local network by itself;
         --join names nodes elsewhere. Nothing beyond the link is contacted without it.
  wan    a node that may be behind a NAT, anywhere. It is joined to the relays that --join names,
         which carry its connections until there is a direct one. One is enough.
  relay  a public node of your own, which does that for the others.
The last two need --allow FILE, with one peer ID a line ("p2p id" prints a node's, also before its
first start), or --open. The same list says who may connect, call and be relayed.

The first line of standard output is "share: " and ID@host:port, which others give to --join or use
as a PEER. For a node that is reached through a relay it is ID@RELAY@host:port, a PEER for nodes
that run with --profile wan; they --join the relay itself. wan waits up to 3 s for it. Then the
node says who may call, and who comes and goes. Logs go to standard error, refused connections
and calls among them.

Without --listen the node takes port 9388 (TCP and UDP) on all addresses, or a free port when that
one is taken; with --listen, and for a relay, a port that is taken is an error.`,
		Example: `  p2p run
  p2p run --name kitchen --join 192.0.2.7:9388
  p2p run --listen localhost:9400 --home /tmp/second      a second node on this machine
  p2p run --allow friends.txt                             only these IDs may connect and call
  p2p run --profile relay --allow friends.txt             on a public machine
  p2p run --profile wan --join ID@relay.example.org:9388 --allow friends.txt`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.run(cmd.Context(), opts, cmd.Flags().Changed("listen"))
		},
	}
	f := cmd.Flags()
	f.StringVarP(&opts.listen, "listen", "l", "", "where to listen: an `address`, host:port, :port or a multiaddr (default :9388, or a free port)")
	f.StringVar(&opts.profile, "profile", profileLAN, "the `kind` of network: lan, wan or relay")
	f.StringVar(&opts.name, "name", "", "the `name` that the node calls itself by (default the host name)")
	f.StringVar(&opts.network, "network", p2p.DefaultNetwork, "the network's `name`: nodes of different names never meet")
	f.StringArrayVar(&opts.join, "join", nil, "a `place` to join: host:port, ID@host:port or a multiaddr; with --profile wan a relay, with its ID; may be repeated")
	f.StringArrayVar(&opts.announce, "announce", nil, "an `address`, host[:port], at which others reach this node behind a 1:1 NAT; may be repeated")
	f.StringArrayVarP(&opts.tags, "tag", "t", nil, "a `key=value` that others choose instances by; may be repeated")
	f.BoolVar(&opts.dht, "dht", false, "also look up and announce services in the network's DHT, for networks of more than about twenty nodes (wan and relay do so anyway)")
	f.StringVar(&opts.allow, "allow", "", "a `file` with the IDs that may connect and call, one a line; reread when it changes (default everybody)")
	f.BoolVar(&opts.open, "open", false, "let everybody of the network connect and call who finds this node")
	f.StringVar(&opts.webSocket, "websocket", "", "also listen for WebSocket at an `address`, host:port or :port, for nodes whose firewall lets only web traffic out")
	f.BoolVar(&opts.noPortMapping, "no-port-mapping", false, "do not ask the router to map a port (UPnP, NAT-PMP)")
	f.BoolVar(&opts.ephemeral, "ephemeral", false, "a new identity, no home, nothing remembered; other commands cannot reach such a node")
	f.StringVar(&opts.logLevel, "log-level", "warn", "the least `level` to log: debug, info, warn or error")
	f.BoolVarP(&opts.verbose, "verbose", "v", false, "show all addresses, and every peer that is found")
	_ = cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions([]string{profileLAN, profileWAN, profileRelay}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
