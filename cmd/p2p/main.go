// Command p2p runs a node and steers it.
//
//	p2p run                                 # a node, until Ctrl-C; it finds the others on the link by itself
//	p2p peers ls                            # in another terminal: who is there
//	p2p services ls                         # what they offer
//	p2p services call pkg.Service/Method -d '{"field": "value"}'
//
// "p2p help" lists all commands. The commands reach the running node through a socket in its home, a folder that
// --home names, else the variable P2P_HOME, else it is "p2p" in the user's data folder.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no node runs at the home.
package main

import (
	"os"

	"github.com/lynn9388/p2p/cmd/p2p/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
