// Package natlab builds small internets on one machine for tests: sites behind routers of every kind, with real Linux
// hosts in them, and between the sites an Internet with delay and loss. It builds on package netns, needs root, the
// commands ip and nft and the device /dev/net/tun, and skips the test, with the reason, without them.
//
// A site is a router and the hosts on its LAN, each a network namespace. Addresses of the Internet look public but exist
// only in the lab: the site with number n has 5.n.0.1 as its router's address, and 5.n.1.0/24 on its LAN if its kind does
// not translate addresses; the LANs behind NATs all have 192.168.1.0/24, as they do in the world, so that a private
// address of one site leads astray in another. Carriers have 100.64.0.0/24. With IPv6, a site has 2a00:n::/32 and a
// stateful firewall.
//
// The NATs are those of the Linux kernel (nftables, conntrack): ports are preserved where possible, unsolicited packets
// are dropped without an answer, and a mapping is forgotten when nothing went out for two minutes. There is no hairpin:
// two hosts behind one NAT do not reach each other by its outside address. The Internet itself is a thread of the test's
// own process, since the kernel need not have netem: each packet between two sites takes the delay, is lost with the
// given probability, and is routed by its address; see [Config].
package natlab
