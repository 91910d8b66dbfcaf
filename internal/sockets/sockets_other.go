//go:build !linux

package sockets

// Own returns the sockets of this process: here [ErrUnsupported].
func Own() ([]Socket, error) { return nil, ErrUnsupported }
