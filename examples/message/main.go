// Message sends typed messages from node to node, without a gRPC service of one's own.
//
//	go run ./examples/message                                # prints its ID and the notes that it gets
//	go run ./examples/message -to 12D3KooW… "Good morning"   # on the same machine or another one of the network
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/message/note"
	"github.com/lynn9388/p2p/protocols/message"
)

func main() {
	to := flag.String("to", "", "ID of the node to send a note to; without it notes are taken")
	network := flag.String("network", p2p.DefaultNetwork, "name of the network")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	node := p2p.NewNode(":0", p2p.WithNetwork(*network))
	if *to == "" {
		take(node, os.Stdout)
	}
	if err := node.StartServer(); err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if *to == "" {
		fmt.Println("send notes to", node.ID())
		<-ctx.Done()
		return
	}
	words, err := send(ctx, node, *to, strings.Join(flag.Args(), " "))
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Println("words that arrived:", words)
}

// take prints the notes that come to the node. There may be a handler for each type of message; the sender is who the
// connection proves.
func take(node *p2p.Node, out io.Writer) {
	router := message.NewRouter()
	message.Handle(router, func(_ context.Context, from peer.ID, note *pb.Note) (*pb.Receipt, error) {
		words := strings.Fields(note.GetText())
		if len(words) == 0 {
			return nil, errors.New("an empty note")
		}
		fmt.Fprintf(out, "%s: %q\n", from, note.GetText())
		return &pb.Receipt{Words: int32(len(words))}, nil
	})
	message.Register(node, router)
}

// send sends a note to the node that has the ID, and returns how many words arrived.
func send(ctx context.Context, node *p2p.Node, to, text string) (words int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	receipt, err := message.Send[*pb.Receipt](ctx, node.Peer(to), &pb.Note{Text: text})
	return receipt.GetWords(), err
}
