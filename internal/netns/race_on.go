//go:build race

package netns

// raceEnabled tells that the race detector slows this process, and what it starts, by a factor of ten. What is tested
// with several hosts is how soon things happen; the same code runs under the detector in other tests.
const raceEnabled = true
