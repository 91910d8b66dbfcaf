// Package rootless has no code but tests: whole nodes across NATs in one process, on a simulated network in virtual time.
// They need no rights and take seconds. Package suite has the same with processes and the kernel's own NATs.
package rootless
