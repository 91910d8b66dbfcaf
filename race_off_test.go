//go:build !race

package p2p_test

// callsAtOnce is how many calls the load test makes.
const callsAtOnce = 10_000
