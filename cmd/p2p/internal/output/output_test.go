package output

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// nasty is what a hostile peer would call itself: a terminal sequence, a line of its own, a bidirectional override, a C1
// control, a tag character beyond the first plane and a byte that is no UTF-8.
const nasty = "a\x1b[2J\nshare: evil\u202e\u009b\U000e0041\xff"

type inner struct{ Name string }

type sample struct {
	Text  string            `json:"text"`
	List  []string          `json:"list"`
	Map   map[string]string `json:"map"`
	Ptr   *inner            `json:"ptr"`
	Any   any               `json:"any"`
	Time  time.Time         `json:"time"`
	None  []string          `json:"none"`
	hide  string
	Count int `json:"count"`
}

func newSample() sample {
	return sample{
		Text: nasty, List: []string{nasty}, Map: map[string]string{nasty: nasty}, Ptr: &inner{nasty}, Any: []any{nasty},
		Time: time.Unix(0, 0).UTC(), hide: "x", Count: 3,
	}
}

// requireSafe fails for anything but printable characters and the line feeds that the program itself wrote.
func requireSafe(t *testing.T, got string, lines int) {
	t.Helper()
	if n := strings.Count(got, "\n"); n != lines {
		t.Errorf("got %d lines, want %d:\n%q", n, lines, got)
	}
	if i := strings.IndexFunc(got, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("unsafe character at %d in %q", i, got)
	}
	if strings.ContainsRune(got, unicode.ReplacementChar) {
		t.Errorf("not UTF-8: %q", got)
	}
}

func printer(t *testing.T, format string) (*Printer, *strings.Builder) {
	t.Helper()
	var b strings.Builder
	p, err := New(&b, format)
	if err != nil {
		t.Fatal(err)
	}
	return p, &b
}

func TestPrinter_TableIsSafe(t *testing.T) {
	p, b := printer(t, Table)
	if err := p.Print(newSample(), []string{"NAME", "ID"}, [][]string{{nasty, "1"}, {"b", nasty}}); err != nil {
		t.Fatal(err)
	}
	requireSafe(t, b.String(), 3)
}

func TestPrinter_JSONIsSafe(t *testing.T) {
	p, b := printer(t, JSON)
	if err := p.Line(newSample(), "%s", "unused"); err != nil {
		t.Fatal(err)
	}
	requireSafe(t, b.String(), 1)
	var back sample
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	// Also who reads the string out of the document, such as jq -r, gets nothing that a terminal obeys.
	requireSafe(t, back.Text+back.List[0]+back.Ptr.Name+back.Map[back.Text], 0)
}

func TestPrinter_PrintfMakesArgumentsSafe(t *testing.T) {
	p, b := printer(t, Table)
	if err := p.Printf("%s %v %d %s\n", nasty, errors.New(nasty), 3, []byte(nasty)); err != nil {
		t.Fatal(err)
	}
	requireSafe(t, b.String(), 1)
	if !strings.Contains(b.String(), " 3 ") {
		t.Errorf("a number was lost: %q", b)
	}
}

func TestPrinter_AlignsColumnsWithoutTrailingSpace(t *testing.T) {
	p, b := printer(t, Table)
	if err := p.Rows([]string{"A", "B"}, [][]string{{"long cell", "x"}, {"s", ""}}); err != nil {
		t.Fatal(err)
	}
	want := "A          B\nlong cell  x\ns\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestPrinter_DocumentKeepsItsMeaning(t *testing.T) {
	text := "\u202e \u009b \u007f \U000e0041 é 世 🎉"
	doc, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	p, b := printer(t, JSON)
	if err := p.Document(doc); err != nil {
		t.Fatal(err)
	}
	requireSafe(t, b.String(), 0)
	var back string
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	if back != text {
		t.Errorf("got %q, want %q", back, text)
	}
	if !strings.Contains(b.String(), "é 世 🎉") {
		t.Errorf("harmless text was escaped: %s", b)
	}
}

func TestNew_RefusesAnUnknownFormat(t *testing.T) {
	_, err := New(&strings.Builder{}, "xml\x1b")
	if err == nil {
		t.Fatal("no error")
	}
	requireSafe(t, err.Error(), 0)
}

func TestClean_LeavesTheOriginalAlone(t *testing.T) {
	v := newSample()
	Clean(v)
	if diff := cmp.Diff(newSample(), v, cmp.AllowUnexported(sample{})); diff != "" {
		t.Error(diff)
	}
	if Clean(nil) != nil {
		t.Error("nil became something")
	}
	if got, ok := Clean(v).(sample); !ok || got.None != nil || got.hide != "x" || !got.Time.Equal(v.Time) {
		t.Errorf("got %+v", got)
	}
}

func FuzzDocument(f *testing.F) {
	f.Add("plain")
	f.Add(nasty)
	f.Fuzz(func(t *testing.T, s string) {
		doc, err := json.Marshal(s) // of any string, UTF-8 or not
		if err != nil {
			t.Fatal(err)
		}
		var want, got string
		if err := json.Unmarshal(doc, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(escape(doc), &got); err != nil {
			t.Fatalf("%v in %q", err, escape(doc))
		}
		// U+FFFD is written as an escape and reads the same.
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		requireSafe(t, string(escape(doc)), 0)
	})
}
