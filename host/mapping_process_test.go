package host_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
)

// mapsPorts is set in the environment of a test binary that has ports mapped, says which, and ends when told to.
const mapsPorts = "HOST_TEST_MAPS_PORTS"

// mapPorts is the process behind the router.
func mapPorts() int {
	begun := time.Now()
	h, err := host.New(host.Config{Listen: []string{":9388"}, WAN: true, MapPorts: true})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	all, ok := h.(interface{ AllAddrs() []ma.Multiaddr })
	if !ok {
		fmt.Println("error: no AllAddrs")
		return 1
	}
	for time.Since(begun) < 30*time.Second {
		var public []string
		for _, a := range all.AllAddrs() {
			if addr.ScopeOf(a) == addr.Public {
				public = append(public, a.String())
			}
		}
		if len(public) == 2 {
			fmt.Println("mapped", strings.Join(public, " "), time.Since(begun).Milliseconds())
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	begun = time.Now()
	if err := h.Close(); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println("closed", time.Since(begun).Milliseconds())
	return 0
}
