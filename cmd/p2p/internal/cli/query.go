package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
)

// answerJSON is the answer to a question in JSON, or why there is none.
type answerJSON struct {
	senderJSON
	bodyJSON
	Code  string `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
}

// queryOptions are the flags of "p2p query".
type queryOptions struct {
	timeout time.Duration
	count   int
}

func (a *app) queryCommand() *cobra.Command {
	var opts queryOptions
	cmd := a.readCommand(&cobra.Command{
		Use:   "query TOPIC [TEXT]",
		Short: "Ask all who answer on a topic",
		Long: `Ask all who answer on a topic, and print each answer as it comes, with who gave it, until the
timeout or until --count answers came. Programs answer with broadcast.Handle. Without TEXT the
question is empty.

` + textHelp + `

It exits with 1 when nobody answered, when an answer is an error, and when fewer than --count came.

JSON, a line each: {"id", "name", "pinned_name", "type", "text"} as with "p2p sub", and
{…, "code", "error"} for an answer that failed.`,
		Example: `  p2p query inventory "who has a ladder?"
  p2p query inventory --count 1 --timeout 2s`,
		Args:              exactly("TOPIC", "[TEXT]"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := a.printer()
			if err != nil {
				return err
			}
			req, err := a.queryRequest(args, opts)
			if err != nil {
				return err
			}
			return a.withNode(cmd.Context(), func(c control.ControlServiceClient, _ *grpc.ClientConn) error {
				return query(cmd.Context(), c, out, req)
			})
		},
	})
	cmd.Flags().DurationVar(&opts.timeout, "timeout", 5*time.Second, "the `time` to wait for answers")
	cmd.Flags().IntVarP(&opts.count, "count", "c", 0, "end after so many `answers` (default no limit)")
	return cmd
}

func (a *app) queryRequest(args []string, opts queryOptions) (*control.QueryRequest, error) {
	if err := checkTopic(args[0]); err != nil {
		return nil, err
	}
	switch {
	case opts.timeout <= 0:
		return nil, usagef("--timeout %s: it must be more than 0", opts.timeout)
	case opts.count < 0 || opts.count > maxCount:
		return nil, usagef("--count %d: from 0 to %d", opts.count, maxCount)
	}
	req := &control.QueryRequest{Topic: args[0], Timeout: durationpb.New(opts.timeout), Count: int32(opts.count)} //nolint:gosec // checked above
	if len(args) == 2 {
		text, err := a.text(args[1])
		if err != nil {
			return nil, err
		}
		req.Text = text
	}
	return req, nil
}

// maxCount is the highest --count.
const maxCount = 1_000_000

func query(ctx context.Context, c control.ControlServiceClient, out *output.Printer, req *control.QueryRequest) error {
	stream, err := c.Query(ctx, req)
	if err != nil {
		return err
	}
	good, failed := 0, 0
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		v := answerJSON{senderJSON: senderOf(res.GetSender())}
		if res.GetCode() != 0 {
			failed++
			v.Code, v.Error = codes.Code(uint32(res.GetCode())).String(), res.GetError() //nolint:gosec // of a gRPC status
			err = out.Text(v, v.Code+": "+v.Error, "%s  failed: ", v.senderJSON.text())
		} else {
			good++
			v.bodyJSON = bodyOf(res.GetBody())
			err = out.Text(v, v.bodyJSON.text(), "%s  ", v.senderJSON.text())
		}
		if err != nil {
			return err
		}
	}
	return queryEnd(req, good, failed)
}

// queryEnd tells whether the answers are what was asked for.
func queryEnd(req *control.QueryRequest, good, failed int) error {
	topic, waited := req.GetTopic(), req.GetTimeout().AsDuration()
	switch {
	case failed > 0:
		return fmt.Errorf("%d of %s failed", failed, count(int64(good+failed), "answer"))
	case good == 0:
		return fmt.Errorf("nobody answered on %q within %s: it takes a program that answers there, see broadcast.Handle", topic, waited)
	case int32(good) < req.GetCount(): //nolint:gosec // at most as many as were asked for
		return fmt.Errorf("%s on %q within %s, not %d", count(int64(good), "answer"), topic, waited, req.GetCount())
	default:
		return nil
	}
}
