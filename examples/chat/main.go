// Chat lets people on the local network write to one another: a broadcast, without a server.
//
//	go run ./examples/chat -name Ada        # on one machine
//	go run ./examples/chat -name Bob        # on the same or another one
//
// What is typed in one window, line by line, appears in all others.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/protocols/broadcast"
)

func main() {
	name := flag.String("name", "somebody", "your name")
	room := flag.String("room", "chat/lobby", "the topic to write on")
	network := flag.String("network", p2p.DefaultNetwork, "name of the network")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	node := p2p.NewNode(":0", p2p.WithName(*name), p2p.WithNetwork(*network))
	if err := node.StartServer(); err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := chat(ctx, node, *room, *name, os.Stdin, os.Stdout); err != nil {
		log.Print(err)
	}
}

// A line is what a chat says. A real one would have a message type of its own; a Struct needs no generated code.
type line = *structpb.Struct

// chat writes what is typed to the room, and what others write there to out, until in ends or ctx does.
func chat(ctx context.Context, node *p2p.Node, room, name string, in io.Reader, out io.Writer) error {
	topic, err := broadcast.Join[line](node.Broadcast(), room)
	if err != nil {
		return err
	}
	defer topic.Close()
	heard, err := topic.Subscribe(0)
	if err != nil {
		return err
	}
	ctx, done := context.WithCancel(ctx)
	go func() {
		defer done()
		typed := bufio.NewScanner(in)
		for typed.Scan() {
			text := &structpb.Struct{Fields: map[string]*structpb.Value{
				"name": structpb.NewStringValue(name),
				"text": structpb.NewStringValue(typed.Text()),
			}}
			switch err := topic.Publish(ctx, text); {
			case errors.Is(err, broadcast.ErrNoPeers):
				fmt.Fprintln(out, "(nobody else is here)")
			case ctx.Err() != nil:
				return
			case err != nil:
				fmt.Fprintf(out, "(not sent: %v)\n", err)
			}
		}
	}()
	for m := range heard.Messages(ctx) {
		if m.Missed > 0 {
			fmt.Fprintf(out, "(%d lines were too fast for you)\n", m.Missed)
		}
		if m.From == node.ID() {
			continue // one's own
		}
		// The name is a claim; who wrote is m.From, which the signature proves. Both are a stranger's words: quoting them
		// keeps control characters off the terminal.
		fields := m.Body.GetFields()
		fmt.Fprintf(out, "%s (…%s): %s\n", plain(fields["name"]), m.From.String()[len(m.From.String())-6:], plain(fields["text"]))
	}
	return nil
}

func plain(v *structpb.Value) string {
	q := strconv.QuoteToGraphic(v.GetStringValue())
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}
