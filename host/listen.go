package host

import "fmt"

// PortTakenError tells that a port to listen at belongs to somebody else.
type PortTakenError struct {
	Network string // "TCP" or "UDP"
	Addr    string // what was asked for, such as "localhost:9388"
	Port    uint16
	Err     error // what the system said
}

func (e *PortTakenError) Error() string {
	return fmt.Sprintf("host: listen %q: %s port %d is taken: end the program that uses it, choose another port, or port 0 for a free one",
		e.Addr, e.Network, e.Port)
}

// Unwrap returns what the system said.
func (e *PortTakenError) Unwrap() error { return e.Err }
