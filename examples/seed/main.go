// Seed is the example of 2018, with its four lines unchanged: nodes on one machine that find each other through the
// first of them.
//
//	cd examples/seed
//	go run main.go -port 9388
//	go run main.go -port 9389
//	go run main.go -port 9390
//
// They may be started in any order. See the example hello for the same with its errors handled.
package main

import (
	"flag"
	"strconv"

	"github.com/lynn9388/p2p"
)

func main() {
	port := flag.Int("port", 9388, "port to listen at")
	flag.Parse()

	node := p2p.NewNode("localhost:" + strconv.Itoa(*port))
	node.JoinNetwork("localhost:9388")
	node.StartServer()
	node.Wait()
}
