package portmap

import (
	"bytes"
	"net/url"
	"testing"
)

func FuzzParseDescription(f *testing.F) {
	f.Add([]byte(describedRouter))
	f.Add([]byte("<root><URLBase>http://[</URLBase></root>"))
	at := &url.URL{Scheme: "http", Host: "192.168.1.1:5000", Path: "/root.xml"}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, control, err := parseDescription(bytes.NewReader(b), at)
		if err == nil && (control.Hostname() != at.Hostname() || control.Scheme != "http") {
			t.Errorf("it leads to %s", control)
		}
		_, _ = leaves(bytes.NewReader(b))
	})
}

func FuzzParseSearchAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1:5000/root.xml\r\n\r\n"))
	f.Add([]byte("NOTIFY * HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if at, err := parseSearchAnswer(b, living.gateway); err == nil && at.Hostname() != living.gateway.String() {
			t.Errorf("it leads to %s", at)
		}
	})
}

func FuzzAnswersPMP(f *testing.F) {
	f.Add([]byte{0, 128, 0, 0, 0, 0, 0, 0, 5, 0, 0, 1}, []byte{0, 0})
	f.Add([]byte{0, 129}, []byte{0, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, b, q []byte) {
		if len(q) != 2 && len(q) != 12 {
			return
		}
		if ok, err := answersPMP(b, q); ok && err == nil && len(b) < 12 {
			t.Errorf("%x answers %x", b, q)
		}
	})
}
