//go:build !unix

package doctor

// Machine returns the limits of this process: here none is known.
func Machine() Limits { return Limits{} }
