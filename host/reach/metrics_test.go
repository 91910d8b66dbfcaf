package reach

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics_AreSharedByARegisterer(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	for range 2 {
		m, err := newMetrics(reg)
		if err != nil {
			t.Fatal(err)
		}
		m.dialed(kindQUIC, nil)
		m.dialed(kindTCP, errors.New("no"))
		m.reserved(nil)
		m.attempted(true)
	}
	got := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			got[f.GetName()] += m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{"p2p_reach_relay_dials_total": 4, "p2p_reach_reservations_total": 2, "p2p_reach_attempts_total": 2} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	var none *metrics // keeps nothing
	none.dialed(kindTCP, nil)
	none.reserved(nil)
	none.attempted(false)
}
