// Package output writes what a command has to say: as a table for people or as JSON for programs.
//
// Much of it was chosen by peers: names, addresses, error texts. All strings go through this package on their way to the
// terminal, and it leaves nothing in them that a terminal would obey.
package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/lynn9388/p2p/internal/safetext"
)

// The formats of a [Printer].
const (
	Table = "table"
	JSON  = "json"
)

// Printer writes in one format. It is for one goroutine at a time.
type Printer struct {
	w    io.Writer
	json bool
}

// New returns a printer to w. The format is [Table] or [JSON].
func New(w io.Writer, format string) (*Printer, error) {
	if format != Table && format != JSON {
		return nil, fmt.Errorf("output format %q: use %s or %s", safetext.Clean(format), Table, JSON)
	}
	return &Printer{w: w, json: format == JSON}, nil
}

// IsJSON tells whether the format is JSON.
func (p *Printer) IsJSON() bool { return p.json }

// Print writes value as an indented JSON document, or rows as a table, depending on the format.
func (p *Printer) Print(value any, header []string, rows [][]string) error {
	if p.json {
		return p.encode(value, "  ")
	}
	return p.Rows(header, rows)
}

// Line writes value as a JSON document in one line, or the text with its arguments in one line.
func (p *Printer) Line(value any, format string, args ...any) error {
	if p.json {
		return p.encode(value, "")
	}
	return p.Printf(format+"\n", args...)
}

// Text writes value as a JSON document in one line, or the text with its arguments and behind it a body that a peer chose:
// all of it, with its line feeds. Only the first line begins at the margin. In JSON every string keeps its meaning.
func (p *Printer) Text(value any, body, format string, args ...any) error {
	if !p.json {
		body = strings.NewReplacer("\n", "\n    ", "\t", " ").Replace(safetext.CleanLines(strings.TrimRight(body, "\n")))
		_, err := fmt.Fprintf(p.w, format+"%s\n", append(Safe(args), body)...)
		return err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return err
	}
	return p.Document(b.Bytes())
}

// Rows writes aligned columns. The header may be nil.
func (p *Printer) Rows(header []string, rows [][]string) error {
	w := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	if header != nil {
		rows = append([][]string{header}, rows...)
	}
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = safetext.Clean(c)
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// Printf writes text. The format is the program's, and each argument is made safe; none of them can begin a line.
func (p *Printer) Printf(format string, args ...any) error {
	_, err := fmt.Fprintf(p.w, format, Safe(args)...)
	return err
}

// Lines writes lines at once, each made safe.
func (p *Printer) Lines(lines []string) error {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(safetext.Clean(l))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(p.w, b.String())
	return err
}

// Safe returns the arguments of a format with everything that has text of its own made safe to print.
func Safe(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case string, error, fmt.Stringer, []byte:
			out[i] = safetext.Clean(fmt.Sprintf("%s", a))
		case bool, int, int32, int64, uint16, float64:
			out[i] = a
		default:
			out[i] = safetext.Clean(fmt.Sprint(a))
		}
	}
	return out
}

func (p *Printer) encode(value any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(Clean(value)); err != nil {
		return err
	}
	return p.Document(b.Bytes())
}

// Document writes a JSON document that was made elsewhere. Its strings keep their meaning: what is not plainly printable
// in them is written as a JSON escape.
func (p *Printer) Document(doc []byte) error {
	_, err := p.w.Write(escape(doc))
	return err
}

// escape writes the runes of a JSON document that are not printable as \u escapes. Outside of strings a valid document
// has none but spaces and line feeds.
func escape(doc []byte) []byte {
	if !bytes.ContainsFunc(doc, func(r rune) bool { return !harmless(r) }) {
		return doc
	}
	var b bytes.Buffer
	for len(doc) > 0 {
		r, size := utf8.DecodeRune(doc)
		switch {
		case harmless(r):
			b.Write(doc[:size])
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		doc = doc[size:]
	}
	return b.Bytes()
}

func harmless(r rune) bool {
	return r == '\n' || r == '\t' || r != utf8.RuneError && unicode.IsPrint(r)
}
