// Package suite has no code but tests: nodes across NATs, each a process on a host of package natlab. They take minutes,
// so they run with P2P_LONG set only ("make netns"), and P2P_NAT_RUNS says how often those are repeated that tell how
// often something succeeds (default 3).
package suite
