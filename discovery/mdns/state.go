package mdns

import "time"

// Reason tells in one word how the search on the links goes.
type Reason string

// The reasons. All but Found and Starting explain why nobody was found.
const (
	Stopped     Reason = "stopped"      // the source does not run
	Starting    Reason = "starting"     // it runs, but not long enough to say that there is nobody
	Found       Reason = "found"        // other nodes of the network were heard
	NoInterface Reason = "no-interface" // no interface is up that could carry multicast, not even loopback
	NoAddress   Reason = "no-address"   // the node listens at no address of the interfaces that are up
	LocalOnly   Reason = "local-only"   // only the loopback interface is used: nodes of other machines cannot be found
	Container   Reason = "container"    // beside loopback there are bridges of containers or virtual machines only
	Refused     Reason = "refused"      // the sockets could not be opened
	NotLooped   Reason = "not-looped"   // the node does not even hear itself: a firewall drops UDP port 5353
	Silent      Reason = "silent"       // all works, and nobody was heard
)

// State is a snapshot of a source.
type State struct {
	Reason     Reason
	Text       string // a sentence for a person, with what to do about it
	Interfaces []InterfaceState
	Peers      int       // nodes of this network heard within the last ten minutes and not gone
	Since      time.Time // when Reason began
}

// InterfaceState tells about one interface that is up.
type InterfaceState struct {
	Name     string
	Loopback bool
	Bridge   bool      // a bridge of containers or virtual machines, by its name
	Used     bool      // the source announces and listens here
	Looped   bool      // the source has heard its own packets here
	Peers    int       // nodes heard here within the last ten minutes and not gone
	Heard    time.Time // when a node was last heard here; zero: never
	Err      error     // why a socket could not be opened or written to; nil: none
}
