//go:build !race

package grpcstream

const raceDetector = false
