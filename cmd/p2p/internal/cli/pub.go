package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
	"github.com/lynn9388/p2p/protocols/broadcast"
)

// publishedJSON is what "p2p pub -o json" prints.
type publishedJSON struct {
	Topic    string `json:"topic"`
	Messages int64  `json:"messages"`
	Peers    int32  `json:"peers"`
}

func (a *app) pubCommand() *cobra.Command {
	return a.readCommand(&cobra.Command{
		Use:   "pub TOPIC [TEXT]",
		Short: "Publish a message to all who subscribe to a topic",
		Long: `Publish a message to all who subscribe to a topic: "p2p sub" and programs. Without TEXT each line
of standard input is a message of its own, sent as soon as it is read.

It waits a few seconds for another node on the topic, and exits with 1 when there is none, and when a
message was not accepted.

` + textHelp + `

` + topicHelp + `

JSON: {"topic", "messages", "peers"}: how many peers this node knows to be on the topic.`,
		Example: `  p2p pub news "the kettle boils"
  p2p pub news @report.txt
  tail -f log | p2p pub news`,
		Args:              exactly("TOPIC", "[TEXT]"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := a.printer()
			if err != nil {
				return err
			}
			if err := checkTopic(args[0]); err != nil {
				return err
			}
			texts := a.lines()
			if len(args) == 2 {
				text, err := a.text(args[1])
				if err != nil {
					return err
				}
				texts = once(text)
			}
			return a.withNode(cmd.Context(), func(c control.ControlServiceClient, _ *grpc.ClientConn) error {
				return publish(cmd.Context(), c, out, args[0], texts)
			})
		},
	})
}

// checkTopic finds a topic that cannot be one.
func checkTopic(topic string) error {
	if err := broadcast.CheckTopic(topic); err != nil {
		return usagef("%s", plainText(err.Error()))
	}
	return nil
}

// A textSource returns one text after the other, and io.EOF after the last.
type textSource func() (string, error)

func once(text string) textSource {
	done := false
	return func() (string, error) {
		if done {
			return "", io.EOF
		}
		done = true
		return text, nil
	}
}

// lines are those of standard input.
func (a *app) lines() textSource {
	lines := bufio.NewScanner(a.stdin)
	lines.Buffer(nil, maxText)
	return func() (string, error) {
		switch {
		case lines.Scan():
			return checkText("standard input", lines.Bytes())
		case errors.Is(lines.Err(), bufio.ErrTooLong):
			return "", usagef("standard input: a line is longer than a message may be, %d bytes", maxText)
		case lines.Err() != nil:
			return "", lines.Err()
		default:
			return "", io.EOF
		}
	}
}

func publish(ctx context.Context, c control.ControlServiceClient, out *output.Printer, topic string, texts textSource) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Publish(ctx)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- sendTexts(stream, topic, texts) }() // it ends with the texts
	res := new(control.PublishResponse)
	if err := stream.RecvMsg(res); err != nil {
		return err // also while the next text is waited for
	}
	if err := <-sent; err != nil {
		return err
	}
	done := publishedJSON{Topic: topic, Messages: res.GetMessages(), Peers: res.GetPeers()}
	return out.Line(done, "published %s on %s: %s there", count(done.Messages, "message"), topic, are(done.Peers))
}

// sendTexts sends each text as soon as it is there, and returns what was wrong with one.
func sendTexts(stream grpc.ClientStreamingClient[control.PublishRequest, control.PublishResponse], topic string, texts textSource) error {
	defer func() { _ = stream.CloseSend() }()
	req := &control.PublishRequest{Topic: topic}
	for {
		text, err := texts()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		req.Text = text
		if stream.Send(req) != nil {
			return nil // RecvMsg has the reason
		}
		req = &control.PublishRequest{}
	}
}

// count says how many there are of something.
func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func are(peers int32) string {
	if peers == 1 {
		return "1 peer is"
	}
	return fmt.Sprintf("%d peers are", peers)
}
