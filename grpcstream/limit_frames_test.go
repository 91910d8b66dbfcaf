package grpcstream

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"golang.org/x/net/http2"
)

func TestFrameTracker_KnowsWhereFramesEnd(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	w := http2.NewFramer(&b, nil)
	ends := map[int]bool{0: true, b.Len(): true}
	write := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
		ends[b.Len()] = true
	}
	write(w.WriteSettings())
	write(w.WriteData(1, false, make([]byte, 70_000)))
	write(w.WriteSettingsAck())
	acked := b.Len()
	write(w.WritePing(false, [8]byte{}))
	write(w.WriteData(1, true, nil))
	all := b.Bytes()
	for _, step := range []int{1, 2, 7, 9, 10, 4096, len(all)} {
		var f frameTracker
		for at := 0; at < len(all); {
			n := min(step, len(all)-at)
			f.advance(all[at : at+n])
			at += n
			if f.within() == ends[at] {
				t.Fatalf("steps of %d: at %d within %v, ends %v", step, at, f.within(), ends[at])
			}
			if f.acked != (at >= acked) {
				t.Fatalf("steps of %d: at %d acked %v", step, at, f.acked)
			}
		}
		if f.frames != 5 {
			t.Errorf("steps of %d: %d frames", step, f.frames)
		}
	}
}

// The tracker agrees with x/net's framer on where the last whole frame ends.
func FuzzFrameTracker(f *testing.F) {
	f.Add(preface()[len(http2.ClientPreface):], uint8(3))
	f.Add([]byte{0, 0, 0, 4, 1, 0, 0, 0, 0}, uint8(1))
	f.Add([]byte{0xff, 0xff, 0xff, 0, 0}, uint8(9))
	f.Fuzz(func(t *testing.T, p []byte, step uint8) {
		var tr frameTracker
		tr.advance(make([]byte, prefaceLen))
		for rest := p; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			tr.advance(rest[:n])
			rest = rest[n:]
		}
		whole := 0
		for r := bytes.NewReader(p); ; {
			h, err := http2.ReadFrameHeader(r)
			if err == nil {
				_, err = io.CopyN(io.Discard, r, int64(h.Length))
			}
			if err != nil {
				if partial := !errors.Is(err, io.EOF) || whole != len(p); tr.within() != partial {
					t.Errorf("within %v, but whole frames end at %d of %d", tr.within(), whole, len(p))
				}
				return
			}
			whole = len(p) - r.Len()
		}
	})
}
