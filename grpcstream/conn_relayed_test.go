package grpcstream

import (
	"testing"
	"time"
)

func TestQuota(t *testing.T) {
	for _, c := range []struct {
		q       quota
		age     time.Duration
		carried int64
		want    bool
	}{
		{quota{}, 1000 * time.Hour, 1 << 50, false},
		{quota{duration: 2 * time.Minute}, time.Minute, 1 << 50, false},
		{quota{duration: 2 * time.Minute}, 2*time.Minute - time.Second, 0, true},
		{quota{data: 128 << 10}, 1000 * time.Hour, 64 << 10, false},
		{quota{data: 128 << 10}, 0, 96 << 10, true},
		{quota{duration: time.Minute, data: 128 << 10}, 0, 0, false},
	} {
		if got := c.q.reached(c.age, c.carried); got != c.want {
			t.Errorf("%v after %v and %d bytes: reached %v", c.q, c.age, c.carried, got)
		}
	}
	for want, q := range map[string]quota{
		"any amount":                 {},
		"2m0s":                       {duration: 2 * time.Minute},
		"128 KiB each way":           {data: 128 << 10},
		"1 TiB each way and 24h0m0s": {data: 1 << 40, duration: 24 * time.Hour},
		"999 B each way":             {data: 999},
		"1.5 MiB each way":           {data: 3 << 19},
	} {
		if got := q.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
