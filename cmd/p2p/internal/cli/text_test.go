package cli

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
	"github.com/lynn9388/p2p/protocols/broadcast"
)

func TestText_EachSource(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("from a\nfile"), 0o600); err != nil {
		t.Fatal(err)
	}
	long, binary := filepath.Join(t.TempDir(), "long"), filepath.Join(t.TempDir(), "binary")
	if err := os.WriteFile(long, make([]byte, broadcast.MaxMessage+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, []byte{0xff, 0xfe}, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ arg, want, err string }{
		{"as it is", "as it is", ""},
		{"", "", ""},
		{"a@b", "a@b", ""},
		{"@" + file, "from a\nfile", ""},
		{"-", "from standard\ninput\n", ""},
		{"@", "", "@FILE"},
		{"@" + long, "", "longer than a message may be"},
		{"@" + binary, "", "UTF-8"},
		{"\xff", "", "UTF-8"},
	} {
		a := &app{stdin: strings.NewReader("from standard\ninput\n")}
		got, err := a.text(tc.arg)
		if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%q: got %q, %v", tc.arg, got, err)
		}
	}
}

func TestLines_OneTextEach(t *testing.T) {
	a := &app{stdin: strings.NewReader("one\n\ntwo")}
	next := a.lines()
	var got []string
	for {
		text, err := next()
		if err == io.EOF { //nolint:errorlint // lines promises io.EOF itself
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, text)
	}
	if strings.Join(got, "|") != "one||two" {
		t.Errorf("got %q", got)
	}
	a.stdin = strings.NewReader(strings.Repeat("x", maxText+1))
	if _, err := a.lines()(); err == nil || err == io.EOF { //nolint:errorlint // as above
		t.Errorf("a line too long: %v", err)
	}
}

func TestBodyOf_AnyMessage(t *testing.T) {
	pack := func(m *anypb.Any, err error) *anypb.Any {
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, tc := range []struct {
		body             *anypb.Any
		kind, text, show string
	}{
		{pack(anypb.New(wrapperspb.String("hello"))), "google.protobuf.StringValue", "hello", "hello"},
		{pack(anypb.New(wrapperspb.Int32(7))), "google.protobuf.Int32Value", "7", "7"},
		{&anypb.Any{TypeUrl: "type.googleapis.com/no.Such", Value: []byte("abc")}, "no.Such", "", "(3 bytes of type no.Such)"},
		{&anypb.Any{TypeUrl: "type.googleapis.com/google.protobuf.StringValue", Value: []byte{0xff}}, "google.protobuf.StringValue", "", "(1 byte of type google.protobuf.StringValue)"},
		{&anypb.Any{TypeUrl: "x/no.Such"}, "no.Such", "", "(0 bytes of type no.Such)"},
		{nil, "", "", "(0 bytes of type )"},
	} {
		got := bodyOf(tc.body)
		if got.Type != tc.kind || got.Text != tc.text || got.text() != tc.show {
			t.Errorf("%v: got %+v, %q", tc.body, got, got.text())
		}
	}
}

// A message may have lines, but none of them begins where the program's own lines do.
func TestPrintMessage_NoLineOfItsOwn(t *testing.T) {
	for _, format := range []string{output.Table, output.JSON} {
		var stdout, stderr strings.Builder
		out, err := output.New(&stdout, format)
		if err != nil {
			t.Fatal(err)
		}
		body, err := anypb.New(wrapperspb.String("a\nshare: evil\n\x1b[2J\u202e\t" + strings.Repeat("long ", 1000)))
		if err != nil {
			t.Fatal(err)
		}
		a := &app{stderr: &stderr}
		err = a.printMessage(out, "news", &control.SubscribeResponse{
			Sender: &control.Sender{Id: "12D3KooW", Name: nasty}, Body: body, Time: timestamppb.Now(),
		})
		if err != nil {
			t.Fatal(err)
		}
		requireSafe(t, stdout.String())
		if strings.Contains(stdout.String(), "\nshare") {
			t.Errorf("a line of its own: %q", stdout.String())
		}
		if strings.Count(stdout.String(), "long ") < 999 {
			t.Errorf("%s: the message was cut", format)
		}
	}
}

func TestInstance_HealthForPeople(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		health string
		aside  time.Duration
		want   string
	}{
		{"serving", 0, "serving"},
		{"not serving", -time.Second, "not serving"},
		{"serving", 3 * time.Second, "failing, next try in 3s"},
		{"", 0, ""},
	} {
		i := &control.Instance{Health: tc.health, Rtt: durationpb.New(time.Millisecond)}
		if tc.aside != 0 {
			i.Aside = timestamppb.New(now.Add(tc.aside))
		}
		if got := instanceOf(i).health(now); got != tc.want {
			t.Errorf("%+v: got %q", tc, got)
		}
	}
}

func TestSize_ForPeople(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1<<64 - 1: "16.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
