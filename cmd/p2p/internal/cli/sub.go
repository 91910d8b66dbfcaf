package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
)

// messageJSON is a message in JSON.
type messageJSON struct {
	Time time.Time `json:"time"`
	senderJSON
	bodyJSON
}

// missedJSON tells of messages that did not reach the reader.
type missedJSON struct {
	Missed uint64 `json:"missed"`
}

func (a *app) subCommand() *cobra.Command {
	var count int
	cmd := a.readCommand(&cobra.Command{
		Use:   "sub TOPIC",
		Short: "Print what is published on a topic",
		Long: `Print what is published on a topic from now on, each message with who published it: the ID is
proved, a name in parentheses is what the peer calls itself. It goes on until Ctrl-C, or until
--count messages came.

` + topicHelp + `

A text is printed as it is, another message as JSON if this program knows its type. Messages that
were published one right after the other may come in another order.

JSON, a line each: {"time", "id", "name", "pinned_name", "type", "text"}, with "data" in base64 for a
message of an unknown type; or {"missed"}, how many were lost because they were not read fast enough.`,
		Example: `  p2p sub news
  p2p sub news --count 1
  p2p sub news -o json | jq -r .text`,
		Args:              exactly("TOPIC"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := a.printer()
			if err != nil {
				return err
			}
			if err := checkTopic(args[0]); err != nil {
				return err
			}
			if count < 0 {
				return usagef("--count %d: it must not be negative", count)
			}
			return a.withNode(cmd.Context(), func(c control.ControlServiceClient, _ *grpc.ClientConn) error {
				return a.subscribe(cmd.Context(), c, out, args[0], count)
			})
		},
	})
	cmd.Flags().IntVarP(&count, "count", "c", 0, "end after so many `messages` (default no limit)")
	return cmd
}

func (a *app) subscribe(ctx context.Context, c control.ControlServiceClient, out *output.Printer, topic string, count int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Subscribe(ctx, &control.SubscribeRequest{Topic: topic})
	if err != nil {
		return err
	}
	begun := false
	for n := 0; ; {
		res, err := stream.Recv()
		switch {
		case ctx.Err() != nil:
			return nil // Ctrl-C is the way to end it
		case err != nil && begun:
			return watchEnd(ctx, err)
		case err != nil:
			return err
		}
		begun = true
		if err := a.printMessage(out, topic, res); err != nil {
			return err
		}
		if res.GetSender() == nil {
			continue
		}
		if n++; n == count {
			return nil
		}
	}
}

func (a *app) printMessage(out *output.Printer, topic string, res *control.SubscribeResponse) error {
	switch {
	case res.GetSender() != nil:
		m := messageJSON{Time: res.GetTime().AsTime().Local(), senderJSON: senderOf(res.GetSender()), bodyJSON: bodyOf(res.GetBody())}
		return out.Text(m, m.bodyJSON.text(), "%s  %s  ", m.Time.Format(time.TimeOnly), m.senderJSON.text())
	case res.GetMissed() > 0 && out.IsJSON():
		return out.Line(missedJSON{Missed: res.GetMissed()}, "")
	case res.GetMissed() > 0:
		a.note("missed: %d messages came faster than they were read", res.GetMissed())
	default:
		a.note("subscribed to %s: messages are printed as they come, Ctrl-C ends it", topic)
	}
	return nil
}
