package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
	"github.com/lynn9388/p2p/grpcstream"
)

// serviceJSON is a service and its instances.
type serviceJSON struct {
	Service   string         `json:"service"`
	Instances []instanceJSON `json:"instances"`
}

func (a *app) servicesCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "services",
		Short: "Show the services of the peers, and call them",
		Long: `Show the services of the peers, and call them.

A service has any number of instances: each is a peer that offers it. A peer may carry tags, key=value
("p2p run --tag", p2p.WithTags), to tell instances apart.`,
		Args: cobra.ArbitraryArgs,
	}, a.servicesListCommand(), a.servicesInfoCommand(), a.servicesStatsCommand(), a.callCommand())
}

func (a *app) servicesListCommand() *cobra.Command {
	var tags []string
	cmd := a.readCommand(&cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the services that peers offer, with their instances",
		Long: `List the services that the node knows of, with their instances: the peer, its tags, its health
(serving, not serving, or failing when calls to it went wrong and it is set aside for a while), the
path to it (direct, or through which relay) and the last round trip. What is not known is "-".

JSON: a list of {"service", "instances": [{"id", "name", "pinned_name", "self", "tags": [], "health",
"path", "relay", "rtt_ms", "in_flight", "set_aside_until"}]}.`,
		Example: `  p2p services ls
  p2p services ls --tag color=blue`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := a.printer()
			if err != nil {
				return err
			}
			if err := checkTags(tags); err != nil {
				return err
			}
			return a.withNode(cmd.Context(), func(c control.ControlServiceClient, _ *grpc.ClientConn) error {
				return listServices(cmd.Context(), c, out, tags)
			})
		},
	})
	tagFlag(cmd, &tags)
	return cmd
}

// tagFlag adds the flag that chooses among instances.
func tagFlag(cmd *cobra.Command, tags *[]string) {
	cmd.Flags().StringArrayVarP(tags, "tag", "t", nil, "only instances with this `key=value`; may be repeated, then all must match")
}

// checkTags finds a tag that cannot be one.
func checkTags(tags []string) error {
	for _, tag := range tags {
		if err := grpcstream.CheckTag(tag); err != nil {
			return usagef("--tag: %s", plainText(err.Error()))
		}
	}
	return nil
}

func listServices(ctx context.Context, c control.ControlServiceClient, out *output.Printer, tags []string) error {
	found := make(map[string][]instanceJSON)
	err := eachInstance(ctx, c, &control.FindInstancesRequest{Tags: tags, AskHealth: true}, func(i *control.Instance) error {
		found[i.GetService()] = append(found[i.GetService()], instanceOf(i))
		return nil
	})
	if err != nil {
		return err
	}
	values := make([]serviceJSON, 0, len(found))
	for name, instances := range found {
		slices.SortFunc(instances, func(a, b instanceJSON) int { return strings.Compare(a.ID, b.ID) })
		values = append(values, serviceJSON{Service: name, Instances: instances})
	}
	slices.SortFunc(values, func(a, b serviceJSON) int { return strings.Compare(a.Service, b.Service) })
	var rows [][]string
	for _, s := range values {
		for _, i := range s.Instances {
			rows = append(rows, append([]string{s.Service}, i.row()...))
		}
	}
	if len(rows) == 0 && !out.IsJSON() {
		if len(tags) > 0 {
			return out.Printf("No instance has %s. \"p2p services ls\" shows all.\n", strings.Join(tags, " and "))
		}
		return out.Printf("No services yet: no peer offers one. \"p2p peers ls\" shows who is there.\n")
	}
	return out.Print(values, append([]string{"SERVICE"}, instanceHeader()...), rows)
}
