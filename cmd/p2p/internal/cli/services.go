package cli

import (
	"context"
	"maps"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
)

// serviceJSON is a service and who offers it.
type serviceJSON struct {
	Service string         `json:"service"`
	Peers   []providerJSON `json:"peers"`
}

// providerJSON is one of those who offer a service.
type providerJSON struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	PinnedName string `json:"pinned_name"`
	State      string `json:"state"`
}

// peerServiceJSON is a service of one peer with its methods.
type peerServiceJSON struct {
	Service string       `json:"service"`
	Methods []methodJSON `json:"methods"`
}

// methodJSON is a method.
type methodJSON struct {
	Name            string `json:"name"`
	ClientStreaming bool   `json:"client_streaming"`
	ServerStreaming bool   `json:"server_streaming"`
}

func (a *app) servicesCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "services",
		Short: "Show the services of the peers, and call them",
		Args:  cobra.ArbitraryArgs,
	}, a.servicesListCommand(), a.callCommand())
}

func (a *app) servicesListCommand() *cobra.Command {
	return a.readCommand(&cobra.Command{
		Use:     "ls [PEER]",
		Aliases: []string{"list"},
		Short:   "List the services that peers offer, or those of one peer with their methods",
		Long: `List the services that the peers offer. With PEER, ask that peer for all its services and
their methods, those that every node has included.

JSON: a list of {"service", "peers": [{"id", "name", "pinned_name", "state"}]}; with PEER a list of
{"service", "methods": [{"name", "client_streaming", "server_streaming"}]}.`,
		Example: `  p2p services ls
  p2p services ls 12D3KooW…`,
		Args:              exactly("[PEER]"),
		ValidArgsFunction: a.completePeers,
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := a.printer()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				if err := checkPeer(args[0]); err != nil {
					return err
				}
			}
			return a.withNode(cmd.Context(), func(c control.ControlServiceClient, _ *grpc.ClientConn) error {
				if len(args) == 1 {
					return listServicesOf(cmd.Context(), c, out, args[0])
				}
				return listServices(cmd.Context(), c, out)
			})
		},
	})
}

func listServices(ctx context.Context, c control.ControlServiceClient, out *output.Printer) error {
	res, err := c.ListPeers(ctx, &control.ListPeersRequest{})
	if err != nil {
		return err
	}
	providers := make(map[string][]providerJSON)
	labels := make(map[string]string)
	for _, p := range res.GetPeers() {
		v := peerOf(p)
		labels[v.ID] = v.label()
		for _, s := range v.Services {
			providers[s] = append(providers[s], providerJSON{ID: v.ID, Name: v.Name, PinnedName: v.PinnedName, State: v.State})
		}
	}
	values := make([]serviceJSON, 0, len(providers))
	var rows [][]string
	for _, s := range slices.Sorted(maps.Keys(providers)) {
		values = append(values, serviceJSON{Service: s, Peers: providers[s]})
		for _, p := range providers[s] {
			rows = append(rows, []string{s, or(labels[p.ID]), p.ID, p.State})
		}
	}
	if len(rows) == 0 && !out.IsJSON() {
		return out.Printf("No services yet: no peer offers one. \"p2p peers ls\" shows who is there.\n")
	}
	return out.Print(values, []string{"SERVICE", "NAME", "PEER", "STATE"}, rows)
}

func listServicesOf(ctx context.Context, c control.ControlServiceClient, out *output.Printer, target string) error {
	res, err := c.ListServices(ctx, &control.ListServicesRequest{Target: target})
	if err != nil {
		return err
	}
	values := make([]peerServiceJSON, 0, len(res.GetServices()))
	var rows [][]string
	for _, s := range res.GetServices() {
		v := peerServiceJSON{Service: s.GetName(), Methods: []methodJSON{}}
		for _, m := range s.GetMethods() {
			m := methodJSON{Name: m.GetName(), ClientStreaming: m.GetClientStreaming(), ServerStreaming: m.GetServerStreaming()}
			v.Methods = append(v.Methods, m)
			rows = append(rows, []string{s.GetName(), m.Name, m.shape()})
		}
		values = append(values, v)
	}
	return out.Print(values, []string{"SERVICE", "METHOD", "TAKES AND GIVES"}, rows)
}

// shape tells what goes each way.
func (m methodJSON) shape() string {
	switch {
	case m.ClientStreaming && m.ServerStreaming:
		return "many, many"
	case m.ClientStreaming:
		return "many, one"
	case m.ServerStreaming:
		return "one, many"
	default:
		return "one, one"
	}
}
