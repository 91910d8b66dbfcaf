// Package safetext makes strings that a peer chose fit for a terminal or a log.
//
// A node's name, its agent version, a status message and an address all come from somebody else. Written to a
// terminal as they are, they could move the cursor, change its title or reorder the text around them.
package safetext

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLen is the longest string, in bytes, that [Clean] returns before it cuts and appends an ellipsis.
const MaxLen = 1024

// Clean returns s with every character that is not plainly printable written as a Go escape: control and format
// characters (which include the bidirectional overrides), line and paragraph separators, and bytes that are not
// UTF-8. A string that is longer than [MaxLen] is cut. Clean is idempotent for text without escapes of its own.
func Clean(s string) string { return clean(s, false) }

// CleanLines is [Clean] for text that may have several lines, such as an indented JSON document: line feeds and
// tabs stay, and nothing is cut.
func CleanLines(s string) string { return clean(s, true) }

func clean(s string, lines bool) string {
	cut := !lines && len(s) > MaxLen
	if cut {
		s = s[:MaxLen]
		for len(s) > 0 && !utf8.RuneStart(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
		if r, size := utf8.DecodeLastRuneInString(s); r == utf8.RuneError && size == 1 {
			s = s[:len(s)-1]
		}
	}
	if !cut && !strings.ContainsFunc(s, func(r rune) bool { return unsafeRune(r, lines) }) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[i])|0x100, 16)[1:])
		case unsafeRune(r, lines):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
		i += size
	}
	if cut {
		b.WriteString("…")
	}
	return b.String()
}

func unsafeRune(r rune, lines bool) bool {
	if lines && (r == '\n' || r == '\t') {
		return false
	}
	return r == utf8.RuneError || !unicode.IsPrint(r)
}
