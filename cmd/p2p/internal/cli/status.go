package cli

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
)

// statusJSON is what "p2p status -o json" prints.
type statusJSON struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Version   string     `json:"version"`
	Profile   string     `json:"profile"`
	Network   string     `json:"network"`
	Home      string     `json:"home"`
	Share     string     `json:"share"`
	Addrs     []string   `json:"addrs"`
	Access    string     `json:"access"`
	StartTime time.Time  `json:"start_time"`
	Neighbors int        `json:"neighbors"`
	Connected int        `json:"connected"`
	Known     int        `json:"known"`
	Diagnosis []string   `json:"diagnosis"`
	Reach     *reachJSON `json:"reachability"`
}

func (a *app) statusCommand() *cobra.Command {
	return a.readCommand(&cobra.Command{
		Use:   "status",
		Short: "Show how the running node is doing, and what keeps it from finding others",
		Long: `Show the running node: who and where it is, who may call it, how many peers it has, and
what stands in the way of finding more.

A node with the profile wan or relay also says how it is reached across NATs, as far as its relays
see it, and what each relay does for it.

JSON: {"id", "name", "version", "profile", "network", "home", "share", "addrs": [], "access",
"start_time", "neighbors", "connected", "known", "diagnosis": [], "reachability": null or {"state",
"udp_mapping", "tcp_mapping", "filtering", "observed": [], "reached": [], "relays": [{"id", "name",
"pinned_name", "addrs": [], "connected": [], "since", "rtt_ms", "reserved", "expires", "limit_bytes",
"limit_ms", "last_error"}]}}; diagnosis is empty when nothing is amiss.`,
		Example: `  p2p status
  p2p status -o json | jq -r .share`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := a.printer()
			if err != nil {
				return err
			}
			return a.withNode(cmd.Context(), func(c control.ControlServiceClient, _ *grpc.ClientConn) error {
				res, err := c.Status(cmd.Context(), &control.StatusRequest{})
				if err != nil {
					return err
				}
				s := statusOf(res)
				return out.Print(s, nil, s.rows())
			})
		},
	})
}

func statusOf(res *control.StatusResponse) statusJSON {
	return statusJSON{
		ID: res.GetId(), Name: res.GetName(), Version: res.GetVersion(), Network: res.GetNetwork(), Home: res.GetHome(),
		Share: res.GetShare(), Addrs: list(res.GetAddrs()), Access: res.GetAccess(), StartTime: res.GetStartTime().AsTime().Local(),
		Neighbors: int(res.GetNeighbors()), Connected: int(res.GetConnected()), Known: int(res.GetKnown()),
		Diagnosis: list(res.GetDiagnosis()), Profile: res.GetProfile(), Reach: reachOf(res.GetReachability()),
	}
}

func (s statusJSON) rows() [][]string {
	rows := [][]string{
		{"id", s.ID},
		{"name", s.Name},
		{"share", s.Share},
		{"open to", s.Access},
		{"profile", or(s.Profile)},
		{"network", s.Network},
		{"home", s.Home},
		{"version", s.Version},
		{"running", "for " + time.Since(s.StartTime).Round(time.Second).String()},
		{"peers", strconv.Itoa(s.Neighbors) + " neighbors, " + strconv.Itoa(s.Connected) + " connected, " + strconv.Itoa(s.Known) + " known"},
	}
	if s.Profile != profileRelay { // which asks nobody how it is reached
		rows = append(rows, s.Reach.rows()...)
	}
	rows = append(rows, column("addresses", s.own())...)
	return append(rows, column("diagnosis", s.Diagnosis)...)
}

// own are the addresses that are the node's own: those through relays go without saying where the relays are shown.
func (s statusJSON) own() []string {
	return slices.DeleteFunc(slices.Clone(s.Addrs), func(a string) bool { return strings.Contains(a, "/p2p-circuit") })
}

// listOf makes what a list prints: the values for JSON, and a row of the table for each.
func listOf[T any, V interface{ row() []string }](all []T, of func(T) V) (values []V, rows [][]string) {
	values = make([]V, 0, len(all)) // no list is null
	for _, one := range all {
		v := of(one)
		values = append(values, v)
		rows = append(rows, v.row())
	}
	return values, rows
}

// column puts a list below one another, behind one label.
func column(label string, values []string) [][]string {
	var rows [][]string
	for _, v := range values {
		rows = append(rows, []string{label, v})
		label = ""
	}
	return rows
}

// list returns a slice that is [] in JSON when it is empty.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
