//go:build !linux

package host

import "net"

// growBuffers makes the socket's buffers as large as the system allows.
func growBuffers(c *net.UDPConn) {
	_ = c.SetReadBuffer(udpBuffer)
	_ = c.SetWriteBuffer(udpBuffer)
}
