// Package mdns finds the nodes of the same network on the local links by multicast DNS (RFC 6762), with the records
// of libp2p's mDNS discovery (https://github.com/libp2p/specs/blob/master/discovery/mdns.md): a PTR record that
// names an instance, and the instance's TXT record with the strings "dnsaddr=<multiaddr>/p2p/<peer ID>". The service
// type is our own, _lynn9388-p2p._udp.local, and a further TXT string "net=…" separates networks of different names.
package mdns
