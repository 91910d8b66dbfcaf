package dyncall

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/lynn9388/p2p/cmd/p2p/internal/testservice"
)

const shapes = "shapes.v1.ShapeService"

// dial starts a server in memory, with or without reflection.
func dial(t *testing.T, reflect bool) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer()
	testservice.RegisterShapeServiceServer(s, testservice.Server{})
	if reflect {
		reflection.Register(s)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	cc, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cc.Close()
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return cc
}

func findMethod(t *testing.T, cc grpc.ClientConnInterface, method string) *Method {
	t.Helper()
	m, err := Find(t.Context(), cc, shapes, method)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// call returns the answers, each without its white space.
func call(t *testing.T, method string, in io.Reader) ([]string, error) {
	t.Helper()
	cc := dial(t, true)
	var got []string
	err := findMethod(t, cc, method).Call(t.Context(), cc, in, Answers{Message: func(doc []byte) error {
		var b bytes.Buffer
		if err := json.Compact(&b, doc); err != nil {
			t.Errorf("%v in %s", err, doc)
		}
		got = append(got, strings.TrimSpace(b.String()))
		return nil
	}})
	return got, err
}

func TestCall_EveryShape(t *testing.T) {
	for _, tc := range []struct {
		method, in string
		want       []string
	}{
		{"One", `{"text":"hi"}`, []string{`{"text":"hi"}`}},
		{"One", ``, []string{`{}`}},
		{"Down", `{"count":3}`, []string{`{"number":1}`, `{"number":2}`, `{"number":3}`}},
		{"Down", `{}`, nil},
		{"Up", `{"text":"a"} {"text":"b"}` + "\n" + `{"text":"c"}`, []string{`{"text":"a b c"}`}},
		{"Up", ``, []string{`{}`}},
		{"Both", `{"text":"a"}{"text":"b"}`, []string{`{"text":"a"}`, `{"text":"b"}`}},
		{"Both", ``, nil},
	} {
		t.Run(tc.method+" "+tc.in, func(t *testing.T) {
			got, err := call(t, tc.method, strings.NewReader(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCall_AnswersWhileTheInputIsOpen(t *testing.T) {
	cc := dial(t, true)
	r, w := io.Pipe()
	answers := make(chan string)
	done := make(chan error, 1)
	m := findMethod(t, cc, "Both")
	go func() {
		done <- m.Call(t.Context(), cc, r, Answers{Message: func(doc []byte) error {
			answers <- string(doc)
			return nil
		}})
	}()
	for _, word := range []string{"first", "second"} {
		if _, err := io.WriteString(w, `{"text":"`+word+`"}`); err != nil {
			t.Fatal(err)
		}
		if got := <-answers; !strings.Contains(got, word) {
			t.Errorf("got %s, want %s", got, word)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// That nothing more can be read is not what the input says.
func TestCall_InputThatCannotBeRead(t *testing.T) {
	for _, before := range []string{"", "{}"} {
		_, err := call(t, "One", io.MultiReader(strings.NewReader(before), iotest.ErrReader(context.Canceled)))
		if _, bad := errors.AsType[*InputError](err); bad || !errors.Is(err, context.Canceled) {
			t.Errorf("after %q: %v", before, err)
		}
	}
}

func TestCall_BadInput(t *testing.T) {
	for _, tc := range []struct{ name, method, in, want string }{
		{"not JSON", "One", `{"text":`, "input document 1: it ends in the middle"},
		{"garbage", "One", `hello`, "input document 1: not JSON: invalid character 'h'"},
		{"unknown field", "One", `{"txt":"a"}`, `unknown field "txt"`},
		{"wrong type", "One", `{"text":3}`, "not a shapes.v1.OneRequest"},
		{"two messages", "One", `{}{}`, "the method takes one message"},
		{"garbage behind it", "One", `{}x`, "the method takes one message"},
		{"second of a stream", "Up", `{"text":"a"}{"text"`, "input document 2: it ends in the middle"},
		{"second of both", "Both", `{"text":"a"} nonsense`, "input document 2: not JSON"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := call(t, tc.method, strings.NewReader(tc.in))
			if _, ok := errors.AsType[*InputError](err); !ok {
				t.Fatalf("got %v, want an InputError", err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, want %q in it", err, tc.want)
			}
		})
	}
}

func TestCall_StatusWithDetails(t *testing.T) {
	_, err := call(t, "One", strings.NewReader(`{"text":"fail"}`))
	st := status.Convert(err)
	if st.Code() != codes.FailedPrecondition || len(st.Details()) != 1 {
		t.Errorf("got %v with %v", st, st.Details())
	}
	got, err := call(t, "Both", strings.NewReader(`{"text":"a"}{"text":"stop"}`))
	if status.Code(err) != codes.Aborted || len(got) != 1 {
		t.Errorf("got %v and %v", got, err)
	}
}

func TestCall_Metadata(t *testing.T) {
	cc := dial(t, true)
	var header, trailer []string
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-echo", "v")
	err := findMethod(t, cc, "One").Call(ctx, cc, strings.NewReader(`{}`), Answers{
		Header:  func(md metadata.MD) { header = md.Get("x-echo-header") },
		Trailer: func(md metadata.MD) { trailer = md.Get("x-echo-trailer") },
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]string{{"v"}, {"v"}}, [][]string{header, trailer}); diff != "" {
		t.Error(diff)
	}
}

func TestCall_StopsWhenTheAnswerCannotBeShown(t *testing.T) {
	cc := dial(t, true)
	full := errors.New("disk full")
	err := findMethod(t, cc, "Down").Call(t.Context(), cc, strings.NewReader(`{"count":1000000}`), Answers{Message: func([]byte) error { return full }})
	if !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

func TestFind_Unknown(t *testing.T) {
	cc := dial(t, true)
	_, err := Find(t.Context(), cc, "no.Such", "One")
	if e, ok := errors.AsType[*UnknownError](err); !ok || e.Kind != "service" || !strings.Contains(err.Error(), shapes) {
		t.Errorf("got %v", err)
	}
	_, err = Find(t.Context(), cc, shapes, "Three")
	if e, ok := errors.AsType[*UnknownError](err); !ok || e.Kind != "method" || !strings.Contains(err.Error(), "Both, Down, One, Up") {
		t.Errorf("got %v", err)
	}
	// A message is no service.
	_, err = Find(t.Context(), cc, "shapes.v1.OneRequest", "One")
	if e, ok := errors.AsType[*UnknownError](err); !ok || e.Kind != "service" {
		t.Errorf("got %v", err)
	}
}

func TestFind_WithoutReflection(t *testing.T) {
	_, err := Find(t.Context(), dial(t, false), shapes, "One")
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v", err)
	}
}

func TestUnknownError_ListsAFew(t *testing.T) {
	e := &UnknownError{Kind: "method", Name: "x", Have: strings.Split(strings.Repeat("m,", 49)+"m", ",")}
	if !strings.HasSuffix(e.Error(), "and 30 more") {
		t.Errorf("got %s", e)
	}
}

func TestSplitMethod(t *testing.T) {
	for _, tc := range []struct{ in, service, method string }{
		{"a.b.S/M", "a.b.S", "M"},
		{"/a.b.S/M", "a.b.S", "M"},
		{"S/M", "S", "M"},
		{"a.b.S.M", "a.b.S", "M"},
	} {
		service, method, err := SplitMethod(tc.in)
		if err != nil || service != tc.service || method != tc.method {
			t.Errorf("SplitMethod(%q) = %q, %q, %v", tc.in, service, method, err)
		}
	}
	for _, in := range []string{"", "x", "/", "a/", "/b", "a/b/c", "a b/c", "a.b./c", "a/b\n", "..", "a/1"} {
		if s, m, err := SplitMethod(in); err == nil {
			t.Errorf("SplitMethod(%q) = %q, %q", in, s, m)
		}
	}
}

func FuzzSplitMethod(f *testing.F) {
	f.Add("a.b.S/M")
	f.Add("/a.S.M")
	f.Fuzz(func(t *testing.T, in string) {
		service, method, err := SplitMethod(in)
		if err != nil {
			return
		}
		s, m, err := SplitMethod(service + "/" + method)
		if err != nil || s != service || m != method {
			t.Errorf("%q: %q, %q, then %q, %q, %v", in, service, method, s, m, err)
		}
	})
}

func FuzzDocuments(f *testing.F) {
	f.Add(`{"text":"a"}{}`)
	f.Add(`{"text":`)
	f.Add(`[1] null "x"`)
	desc := (&testservice.OneRequest{}).ProtoReflect().Descriptor()
	types, err := newTypes(desc.ParentFile())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in string) {
		docs := newDocuments(strings.NewReader(in), desc, types)
		for range len(in) + 1 {
			_, err := docs.next()
			if err == nil {
				continue
			}
			if _, ok := errors.AsType[*InputError](err); !ok && !errors.Is(err, io.EOF) {
				t.Errorf("%T %v", err, err)
			}
			return
		}
		t.Error("more documents than bytes")
	})
}
