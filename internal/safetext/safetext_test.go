package safetext

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"plain", "Grüße, 世界 🎉", "Grüße, 世界 🎉"},
		{"escape sequence", "a\x1b[2Jb", `a\x1b[2Jb`},
		{"line feed", "a\nb\r", `a\nb\r`},
		{"bidi override", "a\u202eb", `a\u202eb`},
		{"line separator", "a\u2028b", `a\u2028b`},
		{"zero width", "a\u200bb", `a\u200bb`},
		{"not UTF-8", "a\xff\x0fb", `a\xff\x0fb`},
		{"C1 control", "a\u009bb", `a\u009bb`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Clean(tc.in); got != tc.want {
				t.Errorf("Clean(%q) = %q, want %q", tc.in, got, tc.want)
			}
		})
	}
}

func TestClean_CutsAtARuneBoundary(t *testing.T) {
	got := Clean(strings.Repeat("a", MaxLen-1) + "世界")
	if want := strings.Repeat("a", MaxLen-1) + "…"; got != want {
		t.Errorf("got %d bytes ending in %q", len(got), got[len(got)-8:])
	}
}

func TestCleanLines_KeepsLinesAndTabs(t *testing.T) {
	in := "{\n\t\"a\": 1\n}" + strings.Repeat(" ", 2*MaxLen)
	if got := CleanLines(in); got != in {
		t.Errorf("CleanLines changed plain text: %q", got)
	}
	if got, want := CleanLines("a\x1b\nb"), "a\\x1b\nb"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b]0;title\x07")
	f.Add("\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, got := range []string{Clean(s), strings.NewReplacer("\n", "", "\t", "").Replace(CleanLines(s))} {
			if !utf8.ValidString(got) {
				t.Fatalf("%q became invalid UTF-8: %q", s, got)
			}
			for _, r := range got {
				if !unicode.IsPrint(r) {
					t.Fatalf("%q kept %U", s, r)
				}
			}
		}
	})
}
