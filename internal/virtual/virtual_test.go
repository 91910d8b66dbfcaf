package virtual

import (
	"runtime"
	"testing"
	"time"
)

func TestTest_TimeIsVirtual(t *testing.T) {
	before, began := runtime.GOMAXPROCS(0), time.Now()
	Test(t, func(t *testing.T) {
		if raceEnabled && runtime.GOMAXPROCS(0) != 1 {
			t.Errorf("%d processors under the race detector", runtime.GOMAXPROCS(0))
		}
		time.Sleep(24 * time.Hour)
	})
	if took := time.Since(began); took > time.Hour {
		t.Errorf("it took %v", took)
	}
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("%d processors afterwards, %d before", got, before)
	}
}

func TestTest_OneWithinAnother(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	var a alone
	a.take()
	a.take()
	a.giveBack()
	if got := runtime.GOMAXPROCS(0); got != 1 {
		t.Errorf("%d processors while one still needs one", got)
	}
	a.giveBack()
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("%d processors afterwards, %d before", got, before)
	}
}
