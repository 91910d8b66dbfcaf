package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/internal/safetext"
	"github.com/lynn9388/p2p/protocols/broadcast"
)

// textHelp says in every command how a TEXT is given.
const textHelp = `TEXT is the text itself, @FILE for what a file holds, or - for all of standard input. It is sent as
a google.protobuf.StringValue, which is wrapperspb.String in Go.`

// topicHelp says what a TOPIC is.
const topicHelp = `A topic is a name that those who use it agree on; nothing has to be set up. Only who may call a
node may publish to it.`

// text returns the TEXT that an argument stands for.
func (a *app) text(arg string) (string, error) {
	var raw []byte
	var err error
	switch path, isFile := strings.CutPrefix(arg, "@"); {
	case arg == "-":
		raw, err = io.ReadAll(io.LimitReader(a.stdin, maxText+1))
	case isFile && path == "":
		return "", usagef("@: name a file behind it: @FILE")
	case isFile:
		raw, err = readFile(path)
	default:
		raw = []byte(arg)
	}
	if err != nil {
		return "", err
	}
	return checkText(arg, raw)
}

// maxText is the length of the longest text, in bytes.
const maxText = broadcast.MaxMessage

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the user named it
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxText+1))
	return raw, errors.Join(err, f.Close())
}

// checkText refuses what is no text; name says where it is from.
func checkText(name string, raw []byte) (string, error) {
	switch {
	case len(raw) > maxText:
		return "", usagef("%s: longer than a message may be, %d bytes", name, maxText)
	case !utf8.Valid(raw):
		return "", usagef("%s: not text (UTF-8): encode it first, for example with base64", name)
	}
	return string(raw), nil
}

// bodyJSON is a message in JSON.
type bodyJSON struct {
	Type string `json:"type"`           // its full name
	Text string `json:"text"`           // of a StringValue, or the message as JSON
	Data []byte `json:"data,omitempty"` // the message when this program does not know its type
}

func bodyOf(body *anypb.Any) bodyJSON {
	v := bodyJSON{Type: safetext.Clean(string(body.MessageName()))}
	m, err := body.UnmarshalNew()
	if err == nil {
		if s, ok := m.(*wrapperspb.StringValue); ok {
			v.Text = s.GetValue()
			return v
		}
		var doc []byte
		if doc, err = protojson.Marshal(m); err == nil {
			v.Text = string(doc)
			return v
		}
	}
	v.Data = append([]byte{}, body.GetValue()...)
	return v
}

// text is the message for people.
func (b bodyJSON) text() string {
	if b.Data != nil {
		return fmt.Sprintf("(%s of type %s)", count(int64(len(b.Data)), "byte"), b.Type)
	}
	return b.Text
}
