//go:build linux

package natlab

import "strings"

// firstHost is the address of the first host on the LAN of a home.
const firstHost = "192.168.1.2"

// mappingLife is how long a mapping lasts after the last packet that went out by it: what RFC 4787 demands at least, and
// many routers have.
const mappingLife = "120s"

// rules is the packet filter of a kind, for nft. Interface wan is outside, br0 inside.
func rules(k Kind) string {
	if k == None {
		return ""
	}
	var b strings.Builder
	b.WriteString(filter(k))
	if k.translates() {
		b.WriteString("table inet nat {\n")
		if k == UPnP {
			b.WriteString("\tchain upnp { }\n\tchain upnp-post { }\n")
		}
		b.WriteString("\tchain prerouting {\n\t\ttype nat hook prerouting priority dstnat;\n")
		b.WriteString(inward(k))
		b.WriteString("\t}\n\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat;\n")
		b.WriteString(outward(k))
		b.WriteString("\t}\n")
		if k != Symmetric {
			b.WriteString(remember("tcp") + remember("udp"))
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// filter is what the router lets through. What comes unasked is dropped before conntrack knows it, so it cannot take the
// tuple of a mapping: a later packet to where it came from keeps its port.
func filter(k Kind) string {
	through := "\t\tiifname br0 oifname wan accept\n"
	blocked := ""
	switch k {
	case UDPBlocked:
		blocked = "\t\tmeta l4proto udp drop\n"
	case TCPBlocked:
		blocked = "\t\tmeta l4proto tcp drop\n"
	case ProxyOnly:
		through = ""
	default:
	}
	opened := ""
	if k == UPnP {
		opened = "\tchain upnp { }\n"
		through += "\t\tjump upnp\n"
	}
	return `table inet filter {
	chain input {
		type filter hook input priority filter;
		iifname wan ct state established,related accept
		iifname wan icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
		iifname wan drop
	}
` + opened + `	set stopped { type ifname; }
	chain forward {
		type filter hook forward priority filter; policy drop;
		iifname @stopped drop
		ct state invalid drop
` + blocked + `		ct state established,related accept
		ct status dnat accept
` + through + `	}
}
`
}

// inward translates what comes to a mapped port, for the kinds that let strangers in: conntrack does it for answers.
func inward(k Kind) string {
	switch k {
	case FullCone:
		return "\t\tiifname wan dnat ip to tcp dport map @tcp-any\n\t\tiifname wan dnat ip to udp dport map @udp-any\n"
	case Restricted:
		return "\t\tiifname wan dnat ip to ip saddr . tcp dport map @tcp-from\n\t\tiifname wan dnat ip to ip saddr . udp dport map @udp-from\n"
	case OneToOne:
		return "\t\tiifname wan meta nfproto ipv4 dnat ip to " + firstHost + "\n"
	case UPnP:
		return "\t\tjump upnp\n"
	default:
		return ""
	}
}

// outward translates what goes out. By itself Linux keeps a port where it can and otherwise takes another for that
// destination only; here another port is for all destinations, as a mapping independent of the endpoint demands.
//
// IPv6 is not translated.
func outward(k Kind) string {
	if k == Symmetric {
		return "\t\toifname wan meta nfproto ipv4 masquerade fully-random\n"
	}
	text := ""
	if k == UPnP {
		text = "\t\tjump upnp-post\n"
	}
	for _, proto := range []string{"tcp", "udp"} {
		text += strings.ReplaceAll(`		oifname wan snat ip to ip saddr . PROTO sport map @PROTO-out
		oifname wan meta nfproto ipv4 PROTO sport @PROTO-taken masquerade to :20000-60000 fully-random
`, "PROTO", proto)
	}
	return text + "\t\toifname wan meta nfproto ipv4 masquerade\n"
}

// remember keeps the mappings of a transport, after the translation: from inside to outside, from outside to inside for
// anybody, the same for each address that was sent something, and the ports that are taken. That it is this transport
// must stand in each rule: nft wants it where it reads ports from conntrack.
func remember(proto string) string {
	const text = `	map PROTO-out { type ipv4_addr . inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout LIFE; size 65535; }
	map PROTO-any { type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout LIFE; size 65535; }
	map PROTO-from { type ipv4_addr . inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout LIFE; size 65535; }
	set PROTO-taken { type inet_service; flags dynamic,timeout; timeout LIFE; size 65535; }
	chain PROTO-remember {
		type filter hook postrouting priority 300;
		meta nfproto ipv6 accept
		oifname wan ct direction original jump PROTO-asked
		oifname wan ct direction reply ct status dnat jump PROTO-answered
	}
	chain PROTO-asked {
		meta l4proto PROTO update @PROTO-out { ct original ip saddr . ct original proto-src : ip saddr . PROTO sport }
		meta l4proto PROTO update @PROTO-any { PROTO sport : ct original ip saddr . ct original proto-src }
		meta l4proto PROTO update @PROTO-from { ip daddr . PROTO sport : ct original ip saddr . ct original proto-src }
		meta l4proto PROTO update @PROTO-taken { PROTO sport }
	}
	chain PROTO-answered {
		meta l4proto PROTO update @PROTO-out { ct reply ip saddr . ct reply proto-src : ip saddr . PROTO sport }
		meta l4proto PROTO update @PROTO-any { PROTO sport : ct reply ip saddr . ct reply proto-src }
		meta l4proto PROTO update @PROTO-from { ip daddr . PROTO sport : ct reply ip saddr . ct reply proto-src }
		meta l4proto PROTO update @PROTO-taken { PROTO sport }
	}
`
	return strings.NewReplacer("PROTO", proto, "LIFE", mappingLife).Replace(text)
}
