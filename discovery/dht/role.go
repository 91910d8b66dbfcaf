package dht

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
)

// A role decides whether this node answers others. The library is always a server; a client is one whose handler is not
// set: others read from identify whom they may ask.
type role struct {
	d *DHT

	mu      sync.Mutex
	server  bool
	ended   bool
	handler network.StreamHandler // nil until the library has set it
}

// SetServer makes the node a server, which answers others and keeps records for them, or a client, which only asks and
// announces. Who can be dialed by everybody in the network is to be a server, as public nodes are, or all nodes where
// they are on one link; who is behind a NAT a client, since others would dial it in vain. It may be called at any
// time; the others learn of it by identify. Setting what is so already does nothing.
func (d *DHT) SetServer(on bool) {
	if !d.role.set(on) {
		return
	}
	d.log.Debug("the role in the table changed", "source", "dht", "server", on)
	select {
	case d.changed <- struct{}{}: // a client announces itself, too
	default:
	}
}

// Server tells whether the node is a server now.
func (d *DHT) Server() bool {
	d.role.mu.Lock()
	defer d.role.mu.Unlock()
	return d.role.server
}

// set changes the role and tells whether it was another.
func (r *role) set(server bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server == server || r.ended {
		return false
	}
	r.server = server
	if r.handler != nil && server {
		r.d.host.SetStreamHandler(r.d.proto, r.handler)
	}
	if !server {
		r.d.host.RemoveStreamHandler(r.d.proto)
		r.d.door.drop()
	}
	return true
}

// handle takes the library's handler.
func (r *role) handle(h network.StreamHandler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.handler = h; r.server && !r.ended {
		r.d.host.SetStreamHandler(r.d.proto, h)
	}
}

// end stops answering for good.
func (r *role) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.d.host.RemoveStreamHandler(r.d.proto)
}
