//go:build race

package p2p_test

// callsAtOnce is how many calls the load test makes; the race detector takes ten times the memory and the time.
const callsAtOnce = 1000
