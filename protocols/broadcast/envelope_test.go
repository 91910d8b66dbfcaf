package broadcast

import (
	"errors"
	"strings"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func valid(tb testing.TB) *Envelope {
	tb.Helper()
	body, err := pack(say("hello"))
	if err != nil {
		tb.Fatal(err)
	}
	return &Envelope{Session: 1, Sequence: 1, Time: 1, Body: body}
}

func marshal(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func TestParse_TakesWhatHoldsOnly(t *testing.T) {
	id := make([]byte, questionID)
	at := ma.StringCast("/ip4/10.0.0.1/tcp/1").Bytes()
	for _, tc := range []struct {
		what   string
		change func(e *Envelope)
		ok     bool
	}{
		{"plain", func(*Envelope) {}, true},
		{"a question", func(e *Envelope) { e.Question = &Question{Id: id, TimeoutMs: 1, Addrs: [][]byte{at}} }, true},
		{"no session", func(e *Envelope) { e.Session = 0 }, false},
		{"no sequence", func(e *Envelope) { e.Sequence = 0 }, false},
		{"no time", func(e *Envelope) { e.Time = -1 }, false},
		{"no body", func(e *Envelope) { e.Body = nil }, false},
		{"no type", func(e *Envelope) { e.Body.TypeUrl = "" }, false},
		{"too large", func(e *Envelope) { e.Body.Value = make([]byte, MaxMessage) }, false},
		{"far too large", func(e *Envelope) { e.Body.Value = make([]byte, MaxMessage+overhead) }, false},
		{"unknown fields", func(e *Envelope) { e.ProtoReflect().SetUnknown([]byte{0x78, 1}) }, false},
		{"a short ID", func(e *Envelope) { e.Question = &Question{Id: id[1:]} }, false},
		{"too many addresses", func(e *Envelope) { e.Question = &Question{Id: id, Addrs: make([][]byte, maxAddrs+1)} }, false},
		{"no address", func(e *Envelope) { e.Question = &Question{Id: id, Addrs: [][]byte{{1}}} }, false},
		{"a long address", func(e *Envelope) { e.Question = &Question{Id: id, Addrs: [][]byte{make([]byte, maxAddrSize+1)}} }, false},
	} {
		e := valid(t)
		tc.change(e)
		if _, err := parse(marshal(t, e)); (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.what, err)
		}
	}
}

func TestPack_UpToTheLimit(t *testing.T) {
	body, err := pack(wrapperspb.Bytes(make([]byte, MaxMessage-100)))
	must(t, err)
	if _, err := parse(marshal(t, &Envelope{Session: 1, Sequence: 1, Time: 1, Body: body})); err != nil {
		t.Error(err)
	}
	if _, err := pack(wrapperspb.Bytes(make([]byte, MaxMessage))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one too large: %v", err)
	}
	if _, err := pack(&anypb.Any{}); err == nil {
		t.Error("an Any without a type was packed")
	}
}

func TestCheckTopic(t *testing.T) {
	for _, good := range []string{"a", "Chat/room-1_x.y", strings.Repeat("a", MaxTopic)} {
		if err := CheckTopic(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "a b", "a\x1b", "ä", strings.Repeat("a", MaxTopic+1)} {
		if err := CheckTopic(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// What parse takes is within the limits and comes out as it went in.
func FuzzParse(f *testing.F) {
	e := valid(f)
	f.Add(marshal(f, e))
	e.Question = &Question{Id: make([]byte, questionID), TimeoutMs: 1, Addrs: [][]byte{ma.StringCast("/ip4/10.0.0.1/tcp/1").Bytes()}}
	f.Add(marshal(f, e))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := parse(data)
		if err != nil {
			return
		}
		if proto.Size(e.GetBody()) > MaxMessage || e.GetSequence() == 0 || len(e.GetQuestion().GetAddrs()) > maxAddrs {
			t.Errorf("beyond the limits: %v", e)
		}
		if again, err := parse(marshal(t, e)); err != nil || !proto.Equal(again, e) {
			t.Errorf("not the same again: %v, %v", again, err)
		}
		_, _ = unpack[text](e.GetBody())
	})
}

func FuzzParseReply(f *testing.F) {
	f.Add(marshal(f, &Reply{Code: 5, Message: "no"}))
	f.Add(marshal(f, &Reply{Body: valid(f).Body}))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if r, err := parseReply(data); err == nil {
			_, _ = unpackReply[text](r)
		}
	})
}
