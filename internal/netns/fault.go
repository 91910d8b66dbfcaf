package netns

// Pull pulls the cable of an interface: the host sees that the carrier is gone.
func (h *Host) Pull(ifname string) {
	h.lab.tb.Helper()
	i := h.iface(ifname)
	h.lab.must("-n", i.bridge.ns, "link", "set", i.port, "down")
}

// Plug puts the cable back.
func (h *Host) Plug(ifname string) {
	h.lab.tb.Helper()
	i := h.iface(ifname)
	h.lab.must("-n", i.bridge.ns, "link", "set", i.port, "up")
}

// Cut takes an interface off the bridge: packets are lost both ways, but the host sees its carrier as before, as when
// a cable is pulled at the far side of a switch.
func (h *Host) Cut(ifname string) {
	h.lab.tb.Helper()
	i := h.iface(ifname)
	h.lab.must("-n", i.bridge.ns, "link", "set", i.port, "nomaster")
}

// Mend undoes Cut.
func (h *Host) Mend(ifname string) {
	h.lab.tb.Helper()
	i := h.iface(ifname)
	h.lab.must("-n", i.bridge.ns, "link", "set", i.port, "master", "br0")
}

// DropInbound makes the host drop what comes in, silently, as a strict firewall does: all TCP, and all UDP except
// multicast DNS, on the interfaces it has now; loopback is left alone. Answers to what the host itself sends are
// dropped as well, and so its open connections are cut.
//
// It works by routing rules and needs no packet filter: a packet that is to be dropped finds no way to the host.
func (h *Host) DropInbound() {
	h.lab.tb.Helper()
	h.mu.Lock()
	names, done := h.ordered, h.drops
	h.drops = true
	h.mu.Unlock()
	if done {
		return
	}
	for _, family := range []string{"-4", "-6"} {
		// The table of the host's own addresses is asked before all rules; it moves behind ours.
		h.IPRun(family, "rule", "add", "pref", "200", "lookup", "local")
		h.IPRun(family, "rule", "del", "pref", "0")
		for _, name := range names {
			h.IPRun(family, "rule", "add", "pref", "100", "iif", name, "ipproto", "udp", "dport", "5353", "lookup", "local")
			h.IPRun(family, "rule", "add", "pref", "101", "iif", name, "ipproto", "udp", "blackhole")
			h.IPRun(family, "rule", "add", "pref", "102", "iif", name, "ipproto", "tcp", "blackhole")
		}
	}
}

// AcceptInbound undoes DropInbound.
func (h *Host) AcceptInbound() {
	h.lab.tb.Helper()
	h.mu.Lock()
	names, done := h.ordered, h.drops
	h.drops = false
	h.mu.Unlock()
	if !done {
		return
	}
	for _, family := range []string{"-4", "-6"} {
		h.IPRun(family, "rule", "add", "pref", "0", "lookup", "local")
		h.IPRun(family, "rule", "del", "pref", "200")
		for range names {
			for _, pref := range []string{"100", "101", "102"} {
				h.IPRun(family, "rule", "del", "pref", pref)
			}
		}
	}
}
