package grpcstream

import "encoding/binary"

const (
	prefaceLen     = 24 // "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", RFC 9113, section 3.4
	frameHeaderLen = 9  // RFC 9113, section 4.1: three bytes of length come first
)

// Of HTTP/2's frames only the one by which a client shows that it reads matters: the acknowledgment of our SETTINGS.
// RFC 9113, section 6.5.
const (
	frameTypeAt   = 3
	frameFlagsAt  = 4
	frameSettings = 4
	flagAck       = 1
)

// A frameTracker follows the bytes that an HTTP/2 client sends and knows whether they end within a frame. The zero
// value is at the beginning of a connection. It checks nothing else; gRPC does.
type frameTracker struct {
	frames uint64 // headers that were complete
	acked  bool   // the client has read our SETTINGS
	began  bool
	body   int // bytes of the current frame, or of the preface, that are still to come
	header [frameHeaderLen]byte
	have   int // bytes of the header that came
}

// advance takes the next bytes.
func (f *frameTracker) advance(p []byte) {
	if !f.began && len(p) > 0 {
		f.began, f.body = true, prefaceLen
	}
	for len(p) > 0 {
		if f.body > 0 {
			n := min(f.body, len(p))
			f.body -= n
			p = p[n:]
			continue
		}
		n := copy(f.header[f.have:], p)
		f.have += n
		p = p[n:]
		if f.have == frameHeaderLen {
			f.have = 0
			f.frames++
			f.body = int(binary.BigEndian.Uint32(f.header[:4]) >> 8)
			f.acked = f.acked || f.header[frameTypeAt] == frameSettings && f.header[frameFlagsAt]&flagAck != 0
		}
	}
}

// within reports whether a frame or the preface has begun and not ended.
func (f *frameTracker) within() bool { return f.body > 0 || f.have > 0 }
