package doctor

import (
	"cmp"
	"slices"
	"time"
)

const (
	nameClock = "clock"
	// clockWarn and clockFail are how far clocks may be apart. Certificates allow an hour; broadcasts and records are
	// refused by their age long before.
	clockWarn = 10 * time.Second
	clockFail = time.Minute
)

// earliest is before every build of this program: a clock that shows less was never set.
var earliest = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant in all but the language

const clockRemedy = "set it, and keep it right with NTP: timedatectl set-ntp true, or your system's settings"

// An Offset is by how much the clock of a peer is ahead of this machine's.
type Offset struct {
	Peer  string
	Ahead time.Duration
}

// Clock judges this machine's clock by itself and by those of others.
func Clock(now time.Time, others []Offset) Check {
	switch {
	case now.Before(earliest):
		return fail(nameClock, "it shows %s, which is long past: it was never set", now.Format(time.DateTime)).todo(clockRemedy)
	case len(others) == 0:
		return unknown(nameClock, "it shows %s, and there is nobody to compare it with", now.Format(time.DateTime))
	}
	off := outlier(others)
	same, agree := 0, 0
	for _, o := range others {
		if o.Ahead.Abs() < clockWarn {
			same++
		}
		if (o.Ahead - off.Ahead).Abs() < clockWarn {
			agree++
		}
	}
	switch {
	case same == len(others):
		return pass(nameClock, "it shows the same as that of %s", off.Peer)
	case 2*same > len(others):
		return pass(nameClock, "most others show the same; that of %s is %s", off.Peer, apart(off.Ahead))
	}
	judge := warn
	if off.Ahead.Abs() >= clockFail {
		judge = fail
	}
	if agree > 1 && 2*agree > len(others) {
		return judge(nameClock, "it is wrong: that of %s is %s, and others agree", off.Peer, apart(off.Ahead)).todo(clockRemedy)
	}
	return judge(nameClock, "that of %s is %s: one of the two is wrong", off.Peer, apart(off.Ahead)).todo("look which, and " + clockRemedy)
}

// outlier returns what the clocks that differ show, as far as one can stand for them: the middle one, or that which differs
// most when the middle one does not.
func outlier(others []Offset) Offset {
	byAhead := slices.SortedFunc(slices.Values(others), func(a, b Offset) int { return cmp.Compare(a.Ahead, b.Ahead) })
	if middle := byAhead[len(byAhead)/2]; middle.Ahead.Abs() >= clockWarn {
		return middle
	}
	return slices.MaxFunc(byAhead, func(a, b Offset) int { return cmp.Compare(a.Ahead.Abs(), b.Ahead.Abs()) })
}

// apart says by how much another clock differs.
func apart(ahead time.Duration) string {
	if ahead < 0 {
		return (-ahead).Round(time.Second).String() + " behind this one"
	}
	return ahead.Round(time.Second).String() + " ahead of this one"
}
