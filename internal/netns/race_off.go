//go:build !race

package netns

// raceEnabled is false without the race detector.
const raceEnabled = false
