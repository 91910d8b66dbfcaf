package pace_test

import (
	"flag"
	"fmt"
	"runtime"
	"testing"

	"github.com/lynn9388/p2p/internal/pace"
)

func TestOf(t *testing.T) {
	for value, want := range map[string]string{"": "short", "1": "long"} {
		t.Setenv(pace.Variable, value)
		if got := pace.Of("long", "short"); got != want || pace.Long() != (want == "long") {
			t.Errorf("with %s=%q it is the %s form", pace.Variable, value, got)
		}
	}
}

func TestWaiting_ChangesTheUsualNumberOnly(t *testing.T) {
	parallel := flag.Lookup("test.parallel").Value
	before := parallel.String()
	t.Cleanup(func() { _ = parallel.Set(before) })
	usual := fmt.Sprint(runtime.GOMAXPROCS(0))
	for asked, want := range map[string]string{usual: "77", "99": "99"} {
		if err := parallel.Set(asked); err != nil {
			t.Fatal(err)
		}
		pace.Waiting(77)
		if got := parallel.String(); got != want {
			t.Errorf("of %s asked for it makes %s, want %s", asked, got, want)
		}
	}
}
