package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
)

// serviceInfoJSON is one service with its methods and instances.
type serviceInfoJSON struct {
	Service   string         `json:"service"`
	Methods   []methodJSON   `json:"methods"`
	Instances []instanceJSON `json:"instances"`
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

func (a *app) servicesInfoCommand() *cobra.Command {
	return a.readCommand(&cobra.Command{
		Use:   "info SERVICE|PEER",
		Short: "Show one service with its methods and instances, or all services of one peer",
		Long: `Show one service: its methods, as an instance describes them, and its instances, those included
that have to be looked for. With a PEER, ask it for all its services and their methods, those that
every node has included.

JSON: {"service", "methods": [{"name", "client_streaming", "server_streaming"}], "instances": […]},
the instances as in "services ls"; with a PEER a list of {"service", "methods": […]}.`,
		Example: `  p2p services info hello.v1.GreeterService
  p2p services info 12D3KooW…`,
		Args:              exactly("SERVICE|PEER"),
		ValidArgsFunction: a.completePeers,
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := a.printer()
			if err != nil {
				return err
			}
			if err := checkPeer(args[0]); err != nil {
				return err
			}
			return a.withNode(cmd.Context(), func(c control.ControlServiceClient, _ *grpc.ClientConn) error {
				return servicesInfo(cmd.Context(), c, out, args[0])
			})
		},
	})
}

// servicesInfo takes what it was given for a peer, and for a service if it is none.
func servicesInfo(ctx context.Context, c control.ControlServiceClient, out *output.Printer, name string) error {
	res, notPeer := c.ListServices(ctx, &control.ListServicesRequest{Target: name})
	switch {
	case notPeer == nil:
		return printServicesOf(out, res)
	case status.Code(notPeer) != codes.FailedPrecondition || !protoreflect.FullName(name).IsValid():
		return notPeer
	}
	v := serviceInfoJSON{Service: name, Methods: []methodJSON{}, Instances: []instanceJSON{}}
	req := &control.FindInstancesRequest{Service: name, Search: control.Search_SEARCH_ALL, AskHealth: true}
	if !strings.Contains(name, ".") {
		req.Search = control.Search_SEARCH_UNSPECIFIED // more likely meant as a peer's name
	}
	err := eachInstance(ctx, c, req, func(i *control.Instance) error {
		v.Instances = append(v.Instances, instanceOf(i))
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(v.Instances) == 0:
		return fmt.Errorf("no service of this name is known, and as a peer: %s", message(notPeer))
	}
	described := v.describe(ctx, c)
	if err := v.print(out); err != nil {
		return err
	}
	return described
}

// describe asks the instances for the methods until one answers.
func (v *serviceInfoJSON) describe(ctx context.Context, c control.ControlServiceClient) error {
	var errs []error
	for _, i := range v.Instances {
		res, err := c.ListServices(ctx, &control.ListServicesRequest{Target: i.ID})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s", i.ID, message(err)))
			continue
		}
		for _, s := range res.GetServices() {
			if s.GetName() == v.Service {
				v.Methods = methodsOf(s)
				return nil
			}
		}
	}
	return fmt.Errorf("no instance describes the methods of %s: %w", v.Service, errors.Join(errs...))
}

// print shows the methods and the instances as a table each.
func (v *serviceInfoJSON) print(out *output.Printer) error {
	if out.IsJSON() {
		return out.Print(v, nil, nil)
	}
	var methods, instances [][]string
	for _, m := range v.Methods {
		methods = append(methods, []string{m.Name, m.shape()})
	}
	for _, i := range v.Instances {
		instances = append(instances, i.row())
	}
	return errors.Join(
		out.Printf("%s\n\n", v.Service),
		out.Rows([]string{"METHOD", "TAKES AND GIVES"}, methods),
		out.Printf("\n"),
		out.Rows(instanceHeader(), instances))
}

func printServicesOf(out *output.Printer, res *control.ListServicesResponse) error {
	values := make([]peerServiceJSON, 0, len(res.GetServices()))
	var rows [][]string
	for _, s := range res.GetServices() {
		v := peerServiceJSON{Service: s.GetName(), Methods: methodsOf(s)}
		for _, m := range v.Methods {
			rows = append(rows, []string{v.Service, m.Name, m.shape()})
		}
		values = append(values, v)
	}
	return out.Print(values, []string{"SERVICE", "METHOD", "TAKES AND GIVES"}, rows)
}

func methodsOf(s *control.Service) []methodJSON {
	out := []methodJSON{}
	for _, m := range s.GetMethods() {
		out = append(out, methodJSON{Name: m.GetName(), ClientStreaming: m.GetClientStreaming(), ServerStreaming: m.GetServerStreaming()})
	}
	return out
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
