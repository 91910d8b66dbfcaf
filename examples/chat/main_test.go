package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/p2ptest"
)

func TestChat(t *testing.T) {
	nodes := p2ptest.Start(t, 2, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	typed, keys := io.Pipe()
	window, screen := io.Pipe()
	ended := make(chan error, 2)
	go func() { ended <- chat(ctx, nodes[0], "room", "Ada", typed, io.Discard) }()
	nobody, mute := io.Pipe()
	go func() {
		ended <- chat(ctx, nodes[1], "room", "Bob", nobody, screen)
		_ = screen.Close()
	}()
	// A publish waits a while for the first who listens, and a person who is told that nobody is there writes again.
	go func() {
		for ctx.Err() == nil {
			if _, err := io.WriteString(keys, "Hello \x1b[2J \"you\"\n"); err != nil {
				return
			}
		}
	}()
	got, err := bufio.NewReader(window).ReadString('\n')
	_ = window.Close()
	id := nodes[0].ID().String()
	if want := "Ada (…" + id[len(id)-6:] + "): " + `Hello \x1b[2J "you"` + "\n"; got != want || err != nil {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	_ = keys.Close() // one chat ends with what is typed, the other with its context
	if err := <-ended; err != nil {
		t.Error(err)
	}
	cancel()
	_ = mute.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestChat_ReturnsWhyItCannotJoin(t *testing.T) {
	if err := chat(t.Context(), p2p.NewNode(":0"), "room", "Ada", strings.NewReader(""), io.Discard); !errors.Is(err, p2p.ErrNotStarted) {
		t.Errorf("got %v, want ErrNotStarted", err)
	}
}
