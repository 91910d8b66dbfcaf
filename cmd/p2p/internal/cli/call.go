package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/dyncall"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/internal/safetext"
)

// callOptions are the flags of "p2p services call".
type callOptions struct {
	data    string
	peer    string
	header  []string
	tags    []string
	all     bool
	timeout time.Duration
	verbose bool
}

func (a *app) callCommand() *cobra.Command {
	var opts callOptions
	cmd := a.readCommand(&cobra.Command{
		Use:   "call package.Service/Method",
		Short: "Call a method of a service, at one instance or at all",
		Long: `Call a method and print each answer as a JSON document. The peer describes the service by
reflection, so nothing has to be installed here.

-d gives the message as JSON, "@" reads it from standard input. A method that takes a stream
takes any number of documents, each sent as soon as it is read; without -d such a stream is empty,
and the message of another method has no fields set.

Without --peer any other node that offers the service is called, never this one; with --tag one that
has the tags. The services that every node has (grpc.health…, grpc.reflection…, p2p.…) need a peer.

With --all every instance gets the call, and each answer is a line that begins with who gave it; what
has not answered at the --timeout counts as failed. It exits with 1 when an instance failed.

JSON with --all, a line each: {"id", "name", "pinned_name", "answer": {…}}, and {…, "code", "error"}
for an instance that failed. Without --all the answers are JSON in any case.`,
		Example: `  p2p services call hello.v1.GreeterService/Greet -d '{"name": "you"}'
  p2p services call hello.v1.GreeterService/Greet --peer alice
  p2p services call hello.v1.GreeterService/Greet --all --timeout 5s
  p2p services call chat.Chat/Talk -d @ < messages.json
  p2p services call grpc.health.v1.Health/Check --peer 12D3KooW…`,
		Args:              exactly("package.Service/Method"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd.Context(), args[0], opts, cmd.Flags().Changed("data"))
		},
	})
	tagFlag(cmd, &opts.tags)
	cmd.Flags().BoolVar(&opts.all, "all", false, "call every instance of the service")
	cmd.Flags().StringVarP(&opts.data, "data", "d", "", "the message as `JSON`, or @ to read it from standard input")
	cmd.Flags().StringVarP(&opts.peer, "peer", "p", "", "the `PEER` to call")
	cmd.Flags().StringArrayVarP(&opts.header, "header", "H", nil, "`metadata` to send, as \"name: value\"; may be repeated")
	cmd.Flags().DurationVar(&opts.timeout, "timeout", 0, "the `time` that the call may take, for example 5s (default no limit)")
	cmd.Flags().BoolVarP(&opts.verbose, "verbose", "v", false, "show whom is called, and metadata, on standard error")
	return cmd
}

// call checks what was asked for, before anything is sent, and calls.
func (a *app) call(ctx context.Context, name string, opts callOptions, hasData bool) error {
	service, method, err := dyncall.SplitMethod(name)
	if err != nil {
		return &usageError{err}
	}
	header, err := parseHeader(opts.header)
	if err != nil {
		return err
	}
	if err := opts.check(service); err != nil {
		return err
	}
	if opts.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opts.timeout)
		defer cancel()
	}
	var in io.Reader = strings.NewReader(opts.data)
	if hasData && opts.data == "@" {
		in = a.stdin
	}
	ctx = metadata.NewOutgoingContext(ctx, header)
	if opts.all {
		return a.callAll(ctx, service, method, in, opts)
	}
	return a.withNode(ctx, func(c control.ControlServiceClient, conn *grpc.ClientConn) error {
		targets, err := instances(ctx, c, opts, service)
		if err != nil {
			return err
		}
		m, target, err := find(ctx, conn, targets, service, method)
		if err != nil {
			return err
		}
		return a.callMethod(ctx, conn, m, target, in, opts.verbose)
	})
}

// check finds flags that cannot be meant.
func (o callOptions) check(service string) error {
	switch {
	case o.timeout < 0:
		return usagef("--timeout %s: it must not be negative", o.timeout)
	case o.peer != "" && (o.all || len(o.tags) > 0):
		return usagef("--peer names one peer: leave out --all and --tag, or --peer")
	case o.peer == "" && grpcstream.IsSystemService(service):
		return usagef("every node has %s: say with --peer which one to call", service)
	case o.peer != "":
		return checkPeer(o.peer)
	default:
		return checkTags(o.tags)
	}
}

// callMethod calls a method of a peer, with the messages in in.
func (a *app) callMethod(ctx context.Context, conn *grpc.ClientConn, m *dyncall.Method, target string, in io.Reader, verbose bool) error {
	if verbose {
		a.note("peer: %s", target)
	}
	out, err := output.New(a.stdout, output.JSON)
	if err != nil {
		return err
	}
	err = m.Call(control.WithTarget(ctx, target), conn, in, a.answers(out, verbose))
	if bad, ok := errors.AsType[*dyncall.InputError](err); ok {
		return &usageError{bad}
	}
	if err != nil {
		return &callError{what: m.Name(), peer: target, err: err}
	}
	return nil
}

// instances returns whom to ask for a service: the peer that was named, or those that offer it, the best first.
func instances(ctx context.Context, c control.ControlServiceClient, opts callOptions, service string) ([]string, error) {
	if opts.peer != "" {
		return []string{opts.peer}, nil
	}
	var found []instanceJSON
	err := eachInstance(ctx, c, &control.FindInstancesRequest{Service: service, Tags: opts.tags, Search: control.Search_SEARCH_FIRST, AskHealth: true}, func(i *control.Instance) error {
		if !i.GetSelf() {
			found = append(found, instanceOf(i))
		}
		return nil
	})
	slices.SortStableFunc(found, compareInstances)
	var ids []string
	for _, i := range found {
		ids = append(ids, i.ID)
	}
	if err == nil && len(ids) == 0 {
		err = fmt.Errorf("no node but the running one offers %s: call that with --peer", service)
	}
	return ids, err
}

// find asks the first of the targets that answers for the method.
func find(ctx context.Context, conn *grpc.ClientConn, targets []string, service, method string) (*dyncall.Method, string, error) {
	var errs []error
	for _, t := range targets {
		m, err := dyncall.Find(control.WithTarget(ctx, t), conn, service, method)
		if err == nil {
			return m, t, nil
		}
		errs = append(errs, describeFailure(t, service, err))
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			break
		}
	}
	return nil, "", errors.Join(errs...)
}

// describeFailure says why a peer could not tell what a method looks like.
func describeFailure(target, service string, err error) error {
	if unknown, ok := errors.AsType[*dyncall.UnknownError](err); ok {
		return fmt.Errorf("%s: %w", target, unknown)
	}
	if status.Code(err) == codes.Unimplemented {
		return fmt.Errorf("%s offers no reflection, which says what the messages of %s look like: call it with a program that was compiled with them", target, service)
	}
	return &callError{what: "asking for " + service, peer: target, err: err}
}

func (a *app) answers(out *output.Printer, verbose bool) dyncall.Answers {
	answers := dyncall.Answers{Message: out.Document}
	if verbose {
		answers.Header = func(md metadata.MD) { a.metadata("header", md) }
		answers.Trailer = func(md metadata.MD) { a.metadata("trailer", md) }
	}
	return answers
}

func (a *app) metadata(kind string, md metadata.MD) {
	for _, k := range slices.Sorted(maps.Keys(md)) {
		for _, v := range md[k] {
			a.note("%s: %s: %s", kind, k, v)
		}
	}
}

// note prints a line beside the output proper.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.stderr, format+"\n", output.Safe(args)...)
}

// parseHeader reads metadata as HTTP headers are written.
func parseHeader(lines []string) (metadata.MD, error) {
	md := metadata.MD{}
	for _, l := range lines {
		k, v, ok := strings.Cut(l, ":")
		k = strings.ToLower(strings.TrimSpace(k))
		switch {
		case !ok || k == "" || strings.ContainsFunc(k, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_.", r) }):
			return nil, usagef("--header %s: write \"name: value\", the name with letters, digits, '-', '_' and '.'", l)
		case strings.HasPrefix(k, "p2p-"), strings.HasPrefix(k, "grpc-"):
			return nil, usagef("--header %s: names that begin with p2p- or grpc- are reserved", l)
		}
		md.Append(k, strings.TrimSpace(v))
	}
	return md, nil
}

// callError is the status that a call ended with.
type callError struct {
	what, peer string
	err        error
}

// Error returns the code, the text and, a line each, the details.
func (e *callError) Error() string {
	st := status.Convert(e.err)
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s: %s: %s", e.what, safetext.Clean(e.peer), st.Code(), safetext.Clean(st.Message()))
	for _, d := range st.Proto().GetDetails() {
		doc, err := protojson.Marshal(d)
		if err != nil {
			doc = []byte(d.GetTypeUrl())
		}
		fmt.Fprintf(&b, "\n%s", safetext.Clean(string(doc)))
	}
	return b.String()
}

func (e *callError) Unwrap() error { return e.err }
